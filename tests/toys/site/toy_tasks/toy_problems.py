"""Six test problems and ten training problems: a number, to be said again."""

from datasets import Dataset


def load(**metadata):
    numbers = {"test": range(6), "train": range(100, 110)}
    return {
        split: Dataset.from_list([{"question": f"Say {n}", "answer": str(n)} for n in those])
        for split, those in numbers.items()
    }
