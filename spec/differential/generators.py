"""Statements about asynchronous generators: a part of interpreter.py, as generators.lua."""
from frames import Entry, kept
from shown import describe, describe_error


class Generators:
    async def generator(self, frame, statements, final):
        try:
            self.log(frame, "starts")
            for statement in statements:
                if statement["op"] == "yield":
                    if self.counted():
                        given = yield statement["value"]
                        self.log(frame, f"is given {describe(given)}")
                elif await self.statement(frame, statement):
                    break
            self.log(frame, "ends")
        except GeneratorExit:
            self.log(frame, "is closed")
            raise
        except BaseException as error:
            self.log(frame, f"ends with {describe_error(error)}")
            raise
        finally:
            await self.block(frame, final)

    def now_yield(self, frame, statement):
        self.log(frame, "has nobody to yield to")

    def now_make_generator(self, frame, statement):
        number = statement["body"]
        frame, statements = self.new_frame(number)
        generator = self.generator(frame, statements, statement["final"])
        self.generators[statement["slot"]] = Entry(generator, number, f"y{statement['slot']}")
        kept.append(generator)

    def now_generator_status(self, frame, statement):
        entry = self.generators.get(statement["slot"])
        if entry:
            generator = entry.value
            status = "dead" if self.is_over(entry) else "normal" if generator.ag_running else "suspended"
            self.log(frame, f"{entry.name} is {status}")

    @staticmethod
    def is_over(entry):
        """Asked before the generator is, for 3.11 takes one for running whose aclose was cancelled."""
        return entry.value.ag_frame is None

    async def next_value(self, frame, entry, value):
        """Whether there was one."""
        if entry.fresh:
            value = None
            entry.fresh = False
        try:
            if self.is_over(entry):
                raise StopAsyncIteration
            result = await entry.value.asend(value)
        except StopAsyncIteration:
            self.log(frame, f"{entry.name} is over")
            return False
        self.log(frame, f"{entry.name} yields {describe(result)}")
        return True

    def generator_for(self, frame, statement):
        entry = self.generators.get(statement["slot"])
        return entry if entry and entry.level > frame.level else None

    async def wait_generator_next(self, frame, statement):
        entry = self.generator_for(frame, statement)
        if entry:
            await self.next_value(frame, entry, statement.get("value"))

    async def wait_generator_iterate(self, frame, statement):
        entry = self.generator_for(frame, statement)
        if entry:
            for _ in range(statement["count"]):
                if not await self.next_value(frame, entry, None):
                    return None
                if await self.block(frame, statement["block"]):
                    return True

    async def wait_generator_close(self, frame, statement):
        entry = self.generator_for(frame, statement)
        if entry:
            if not self.is_over(entry):
                await entry.value.aclose()
            self.log(frame, f"{entry.name} closed")
