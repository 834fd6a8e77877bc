"""Statements about context variables: a part of interpreter.py, as contexts.lua."""
import contextvars

variable = contextvars.ContextVar("variable", default="unset")
bare = contextvars.ContextVar("bare")


class Contexts:
    def make_contexts(self):
        self.tokens = {}
        self.contexts = {}

    def now_variable_get(self, frame, statement):
        if "bare" not in statement:
            self.log(frame, f"variable {variable.get()}")
        elif "default" in statement:
            self.log(frame, f"bare {bare.get(statement['default'])}")
        else:
            self.log(frame, f"bare {bare.get()}")

    def now_variable_set(self, frame, statement):
        self.tokens[statement["slot"]] = (bare if "bare" in statement else variable).set(statement["value"])

    def now_variable_reset(self, frame, statement):
        token = self.tokens.get(statement["slot"])
        if token is not None:
            (bare if "bare" in statement else variable).reset(token)
            self.log(frame, "reset")

    def now_copy_context(self, frame, statement):
        other = self.contexts.get(statement.get("of"))
        self.contexts[statement["slot"]] = other.copy() if other is not None else contextvars.copy_context()

    def now_context_get(self, frame, statement):
        context = self.contexts.get(statement["slot"])
        if context is not None:
            self.log(frame, f"there it is {context.get(variable, 'default')} and {context.get(bare, 'default')}")

    def now_task_context_get(self, frame, statement):
        entry = self.target(statement["target"])
        if entry:
            self.log(frame, f"{entry.name} has variable {entry.value._context.get(variable, 'default')}")

    def now_context_run(self, frame, statement):
        context = self.contexts.get(statement["slot"])
        if context is not None:
            def actions(label):
                self.log(frame, f"within {label}")
                for action in statement["actions"]:
                    self.statement_now(frame, action)
                return "result"

            self.log(frame, f"context gives {context.run(actions, 'the context')}")
