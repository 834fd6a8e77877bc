"""What statements run in, and what the slots of interpreter.py hold."""

# Tasks that are pending and generators must not be collected: their finally blocks would run.
kept = []


class Frame:
    def __init__(self, name, level):
        self.name = name
        self.level = level
        self.result = None
        self.timeouts = []
        self.groups = []
        self.ended = None


class Entry:
    def __init__(self, value, level, name):
        self.value = value
        self.level = level
        self.name = name
        self.fresh = True  # a generator that was never asked
