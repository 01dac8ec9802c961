"""How checks are counted: check(holds, what), and at the end finish()."""
passed = failed = 0


def check(holds, what):
    """Counts it, says what failed; returns whether it holds."""
    global passed, failed
    passed, failed = passed + bool(holds), failed + (not holds)
    if not holds:
        print('failed:', what)
    return bool(holds)


def finish():
    """The last line of the output; returns the exit code."""
    print(f'{passed} passed, {failed} failed')
    return int(failed > 0 or not passed)
