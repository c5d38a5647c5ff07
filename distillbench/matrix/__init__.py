"""From a matrix file to cells: `read` YAML with line numbers, `expand` axes, `resolve` names and options."""
