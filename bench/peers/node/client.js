// Node.js: client.js URL COUNT LIMIT. fetch, which is undici's; so many requests under way, bodies read as text. The
// processor time is that of all of its threads.
"use strict";

const [url, count, limit] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];

async function run(number) {
  let started = 0;
  async function worker() {
    while (started < number) {
      started++;
      const response = await fetch(url);
      const text = await response.text();
      if (!response.ok || text.length === 0) throw new Error("wrong response");
    }
  }
  await Promise.all(Array.from({ length: limit }, worker));
}

async function main() {
  await run(count / 10);
  const used = process.cpuUsage();
  const started = performance.now();
  await run(count);
  const { user, system } = process.cpuUsage(used);
  console.log(`requests_per_cpu_second ${(count / ((user + system) / 1e6)).toFixed(1)}`);
  console.log(`requests_per_second ${(count / ((performance.now() - started) / 1e3)).toFixed(1)}`);
}

main();
