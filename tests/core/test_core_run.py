def test_x(bench, control):
    s = bench.run()
    print(s.endings.values(), s.reasons, control.log("asked"))
    import time

    t = time.time()
    s = bench.run()
    print(time.time() - t, s.endings.values())
    assert 0
