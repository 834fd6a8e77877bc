"""Statements about the loop, its handles and the names of tasks: a part of interpreter.py, as loops.lua."""
import asyncio
import re

from shown import UserError, lower


class Loops:
    def now_call_soon(self, frame, statement):
        arguments = [statement["value"]] if "value" in statement else []
        self.handles[statement["slot"]] = self.loop.call_soon(self.callback(frame, statement), *arguments)

    def now_call_later(self, frame, statement):
        call, when = self.loop.call_later, statement["delay"]
        if "at" in statement:
            call, when = self.loop.call_at, self.loop.time() + statement["delay"]
        arguments = [statement["value"]] if "value" in statement else []
        self.handles[statement["slot"]] = call(when, self.callback(frame, statement), *arguments)

    def now_cancel_handle(self, frame, statement):
        handle = self.handles.get(statement["slot"])
        if handle:
            handle.cancel()
            self.log(frame, f"handle cancelled {lower(handle.cancelled())}")

    def now_look_at_handle(self, frame, statement):
        handle = self.handles.get(statement["slot"])
        if handle:
            when = f"{handle.when():g}" if isinstance(handle, asyncio.TimerHandle) else "nil"
            self.log(frame, f"handle cancelled {lower(handle.cancelled())} when {when}")

    def name_of(self, task):
        if task is None:
            return "nil"
        default = re.fullmatch(r"Task-(\d+)", task.get_name())
        return f"Task+{int(default[1]) - self.first_number}" if default else task.get_name()

    def now_name(self, frame, statement):
        entry = self.target(statement["target"])
        if entry:
            self.log(frame, f"{entry.name} is named {self.name_of(entry.value)}")

    def now_set_name(self, frame, statement):
        entry = self.target(statement["target"])
        if entry:
            entry.value.set_name(statement["name"])

    def now_current_task(self, frame, statement):
        self.log(frame, f"runs in {self.name_of(asyncio.current_task())}")

    def now_all_tasks(self, frame, statement):
        self.log(frame, "tasks " + " ".join(sorted(self.name_of(task) for task in asyncio.all_tasks())))

    def now_look_at_loop(self, frame, statement):
        loop = self.loop
        self.log(frame, f"loop running {lower(loop.is_running())} closed {lower(loop.is_closed())} "
                 f"debug {lower(loop.get_debug())} own {lower(asyncio.get_running_loop() is loop)}")

    def now_run_again(self, frame, statement):
        if statement["how"] == "close":
            self.loop.close()
        elif statement["how"] == "run_forever":
            self.loop.run_forever()
        else:
            self.loop.run_until_complete(self.loop.create_future())

    def now_stop(self, frame, statement):
        self.loop.stop()

    def now_tell(self, frame, statement):
        context = {"message": "told " + statement["label"]}
        if "error" in statement:
            context["exception"] = UserError(statement["error"])
        self.loop.call_exception_handler(context)
