// What worker.mjs is tested with. Times are seconds, paths are of files that are made, or waited for.

import { spawn } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";

export class Operations {
  #greeting;
  #inside = 0;
  #most = 0;

  constructor({ greeting = "hello", fail = null, telemetry }) {
    if (fail) throw new RangeError(fail);
    this.#greeting = greeting;
    telemetry.execute("made.here", { count: 1 }, { greeting });
  }

  greet = (name) => `${this.#greeting}, ${name}`;
  pid = () => process.pid;
  echo = (value) => value;
  add = (left, { right = 1 }) => left + right;
  big = (length) => "x".repeat(length);
  nothing() {}
  _private() {}
  later = async (value) => value;

  /** What no JSON can hold. */
  strange(what) {
    const cycle = [];
    cycle.push(cycle);
    return { number: 2n ** 64n, cycle, nan: [NaN], generator: this.count(3) }[what];
  }

  fail(message, { what = "error" }) {
    if (what === "text") throw message;
    throw new RangeError(message);
  }

  /** Ends when the file `path` is there; makes the file `left`, if that is a path, when it is interrupted. */
  async wait(path, left, { signal }) {
    try {
      while (!existsSync(path)) await sleep(5, undefined, { signal });
    } finally {
      if (left && signal.aborted) writeFileSync(left, "");
    }
    return path;
  }

  /** The same, and pays no heed to being cancelled. */
  async stubborn(path) {
    while (!existsSync(path)) await sleep(5);
    return path;
  }

  /** Returns when `count` of these calls have been in it at once. */
  async meet(count, { signal }) {
    this.#inside += 1;
    this.#most = Math.max(this.#most, this.#inside);
    while (this.#most < count) await turn(undefined, { signal });
    await turn();
    this.#inside -= 1;
    return count;
  }

  most = () => this.#most;

  /** Lets the event loop go round, and makes the file `path` then. */
  async turns(count, path) {
    for (let number = 0; number < count; number += 1) await turn();
    writeFileSync(path, "");
  }

  *count(to) {
    for (let number = 0; number < to; number += 1) yield number;
  }

  /** Without an end; the file `closed` is made when it is closed, of as many bytes as there were items. */
  *forever(closed, { size = 0, computing = 0 }) {
    let number = 0;
    try {
      for (;;) {
        for (const end = performance.now() + computing * 1000; performance.now() < end; );
        yield [number++, "x".repeat(size)];
      }
    } finally {
      writeFileSync(closed, "x".repeat(number));
    }
  }

  /** An item after each pause; the file `closed` is made at its end. */
  async *slowly(pauses, closed, { signal }) {
    try {
      for (const seconds of pauses) {
        await sleep(seconds * 1000, undefined, { signal });
        yield seconds;
      }
    } finally {
      writeFileSync(closed, "");
    }
  }

  *countThenFail(to) {
    yield* this.count(to);
    throw new RangeError("no more");
  }

  remember(word, { session, fill = 0 }) {
    session.data = { words: [...(session.data.words ?? []), word], fill: "x".repeat(fill) };
    return [session.id, session.data.words];
  }

  /** Leaves something that is no data. */
  muddle(data, { session }) {
    session.data = data;
  }

  rememberAndFail({ session }) {
    session.data = { words: ["never kept"] };
    throw new RangeError("after remembering");
  }

  crash(code) {
    process.exit(code);
  }

  kill() {
    process.kill(process.pid, "SIGKILL");
  }

  busy(path) {
    writeFileSync(path, "");
    for (;;);
  }

  print(text) {
    console.log(text);
    console.error(`${text}, as an error`);
  }

  tell(name, measurements, metadata, { telemetry }) {
    telemetry.execute(name, measurements, metadata);
  }

  log(level, text, { telemetry, signal, session, ...fields }) {
    telemetry.log(level, text, fields);
  }

  tellMuch(count, size, { telemetry, done = null }) {
    for (let number = 0; number < count; number += 1) telemetry.execute("much", { number }, { text: "x".repeat(size) });
    if (done) writeFileSync(done, "");
  }

  /** Starts a process, whose number is in the file `path`, and is then busy, or idle. */
  async company(path, what, { signal }) {
    const child = spawn("sleep", ["600"], { stdio: "ignore" });
    writeFileSync(path, String(child.pid));
    if (what === "busy") for (;;);
    await sleep(600_000, undefined, { signal });
  }
}

export const answers = { answer: () => 42 };
export const double = (number) => 2 * number;
