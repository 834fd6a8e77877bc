// Node.js: what its users write, async functions and Promise.all. "await null" lets other promises run, as sleep(0)
// does, but not timers or sockets. Node has no queues or locks of this kind; the usual dozen lines stand for them.
"use strict";
const fs = require("fs");
const { setTimeout: sleepWithSignal } = require("timers/promises");

const sleep = (milliseconds, result) => new Promise((resolve) => setTimeout(resolve, milliseconds, result));

async function short(i) {
  return i;
}

async function yieldsOnce(i) {
  await null;
  return i;
}

async function sleeps(i, milliseconds) {
  await sleep(milliseconds);
  return i;
}

// A warm-up, then the median of a few runs; a number that work returns is the part of its time that counts. Wall time:
// Node's threads collect garbage and compile beside the one that runs JavaScript.
async function report(count, work) {
  await work();
  const times = [];
  for (let i = 0; i < runs; i++) {
    const started = performance.now();
    const counted = await work();
    times.push(counted ?? performance.now() - started);
  }
  times.sort((a, b) => a - b);
  const middle = times.length >> 1;
  const median = times.length % 2 ? times[middle] : (times[middle - 1] + times[middle]) / 2;
  console.log(`nanoseconds_per_unit ${((median / count) * 1e6).toFixed(2)}`);
}

async function gathered(count, job, argument) {
  const promises = [];
  for (let i = 1; i <= count; i++) promises.push(job(i, argument));
  const results = await Promise.all(promises);
  if (results[count - 1] !== count) throw new Error("wrong result");
}

class Queue {
  constructor(limit) {
    this.limit = limit;
    this.items = [];
    this.getters = [];
    this.putters = [];
  }
  async put(item) {
    while (this.items.length >= this.limit) await new Promise((resolve) => this.putters.push(resolve));
    this.items.push(item);
    this.getters.shift()?.();
  }
  async get() {
    while (this.items.length === 0) await new Promise((resolve) => this.getters.push(resolve));
    const item = this.items.shift();
    this.putters.shift()?.();
    return item;
  }
}

class Lock {
  constructor() {
    this.held = false;
    this.waiting = [];
  }
  async acquire() {
    if (this.held) await new Promise((resolve) => this.waiting.push(resolve));
    this.held = true;
  }
  release() {
    if (this.waiting.length > 0) this.waiting.shift()();
    else this.held = false;
  }
}

function resident() {
  global.gc();
  const status = fs.readFileSync("/proc/self/status", "utf8");
  return Number(/^VmRSS:\s*(\d+)/m.exec(status)[1]) * 1024;
}

async function memory(count, job) {
  await gathered(1000, yieldsOnce);
  const before = resident();
  const promises = [];
  for (let i = 0; i < count; i++) promises.push(job(i));
  await null;
  console.log(`bytes_per_task ${((resident() - before) / promises.length).toFixed(1)}`);
  process.exit(0);
}

const works = {
  spawn: (count) => report(count, () => gathered(count, short)),
  yield: (count) => report(count, () => gathered(count, yieldsOnce)),
  sleep: (count) => report(count, () => gathered(count, sleeps, 10)),

  switch: (count) =>
    report(count, () =>
      gathered(
        100,
        async (i, rounds) => {
          for (let round = 0; round < rounds; round++) await null;
          return i;
        },
        count / 100,
      ),
    ),

  alone: (count) =>
    report(count, async () => {
      for (let i = 0; i < count; i++) await null;
    }),

  cancel: (count) =>
    report(count, async () => {
      const controllers = [];
      const promises = [];
      for (let i = 0; i < count; i++) {
        const controller = new AbortController();
        controllers.push(controller);
        promises.push(sleepWithSignal(3600000, i, { signal: controller.signal }));
      }
      await null;
      const started = performance.now();
      for (const controller of controllers) controller.abort();
      const results = await Promise.allSettled(promises);
      const time = performance.now() - started;
      if (results[count - 1].status !== "rejected") throw new Error("not cancelled");
      return time;
    }),

  queue: (count) =>
    report(count, async () => {
      const queue = new Queue(100);
      const producer = (async () => {
        for (let i = 1; i <= count; i++) await queue.put(i);
      })();
      let last;
      for (let i = 0; i < count; i++) last = await queue.get();
      await producer;
      if (last !== count) throw new Error("wrong item");
    }),

  lock: (count) =>
    report(count, async () => {
      const lock = new Lock();
      await gathered(
        100,
        async (i, rounds) => {
          for (let round = 0; round < rounds; round++) {
            await lock.acquire();
            try {
              await null;
            } finally {
              lock.release();
            }
          }
          return i;
        },
        count / 100,
      );
    }),

  // Each level starts in a turn of its own: called plainly, the levels would nest on the stack.
  chain: (count) =>
    report(count, async () => {
      async function level(depth) {
        await null;
        return depth === 0 ? 0 : 1 + (await level(depth - 1));
      }
      if ((await level(count)) !== count) throw new Error("wrong depth");
    }),

  memory: (count) => memory(count, () => sleep(3600000)),
  memory_function: (count) => memory(count, (i) => sleeps(i, 3600000)),

  million: (count) => gathered(count, (i) => sleep(1000, i)),
  million_functions: (count) => gathered(count, sleeps, 1000),
};

const [work, count, runs] = process.argv.slice(2);
if (works[work]) works[work](Number(count));
else console.log("none");
