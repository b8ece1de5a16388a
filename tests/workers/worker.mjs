// A worker in JavaScript, written from docs/WORKER_PROTOCOL.md: JSON, no shared memory, no package but Node's own.
//
//     Pool("operations.mjs:Operations", command=("node", "worker.mjs"), codec="json")
//
// The target is an exported class or object, or the module itself; its operations are its methods whose names begin
// with no "_". Each is called with the call's positional arguments and then one object more: the keyword arguments and
// `signal` (an AbortSignal, aborted when the call is cancelled), `session` ({id, data}, or null) and `telemetry`
// (execute, log).
//
// What is asynchronous can be cancelled and runs beside other calls; what keeps the event loop busy can only be killed.

import { EventEmitter, once } from "node:events";
import { Socket } from "node:net";
import { resolve } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";

const EVENT_LIMIT = 8 * 1024; // bytes of an event's or a line's frame
const WAITING_LIMIT = 64 * 1024; // bytes that wait for room in the socket before events are dropped and streams held up
const LEVELS = ["debug", "info", "warning", "error", "critical"];
const NOT_OURS = ["pool", "resource", "alert", "tuning", "monitor", "llm", "telemetry"]; // first words of events' names

class PayloadError extends Error {
  name = "PayloadError";
}

// -- frames -----------------------------------------------------------------------------------------------------------

const channel = new Socket({
  fd: Number(process.env.POOL_MONITOR_FD),
  writableHighWaterMark: WAITING_LIMIT - EVENT_LIMIT,
});
const limits = { frame: 1024 * 1024, data: 0 }; // until the handshake

/** The bodies that come in, decoded, to the end of the channel. */
async function* received() {
  const utf8 = new TextDecoder("utf-8", { fatal: true });
  let [chunks, held, wanted, isLength] = [[], 0, 4, true];
  for await (const chunk of channel) {
    chunks.push(chunk);
    held += chunk.length;
    while (held >= wanted) {
      const bytes = chunks.length > 1 ? Buffer.concat(chunks) : chunks[0];
      const part = bytes.subarray(0, wanted);
      chunks = [bytes.subarray(wanted)];
      held -= wanted;
      wanted = isLength ? part.readUInt32BE() : 4;
      if (wanted < 1 || wanted > limits.frame) throw new Error(`protocol error: a frame of ${wanted} bytes`);
      isLength = !isLength;
      if (isLength) yield JSON.parse(utf8.decode(part));
    }
  }
}

/** JSON has no NaN and no infinity, and what it has no word for is not to arrive as something else. */
function exact(_key, value) {
  if (typeof value === "number" && !Number.isFinite(value)) throw new TypeError(`JSON cannot hold ${value}`);
  return value;
}

function encoded(value) {
  try {
    return Buffer.from(JSON.stringify(value, exact));
  } catch (error) {
    throw new PayloadError(`it cannot be carried as JSON: ${error.message}`); // a BigInt, a cycle
  }
}

function framed(body) {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  return Buffer.concat([length, body]);
}

function frame(message) {
  const body = encoded(message);
  if (body.length > limits.frame) throw new PayloadError(`a message of ${body.length} bytes is over frame_limit`);
  return framed(body);
}

/** The end of a call that failed, its texts cut if they would not fit: a character takes six bytes at most. */
function failed(id, kind, error, times) {
  const { name = typeof error, message = error, stack = "" } = error instanceof Error ? error : {};
  const texts = [name, message, stack].map(String);
  const said = (most) => frame(["error", id, kind, ...texts.map((text) => text.slice(0, most)), times]);
  try {
    return said(Infinity);
  } catch {
    return said(Math.floor(limits.frame / 32));
  }
}

// -- what the target tells --------------------------------------------------------------------------------------------

let dropped = 0;

/** Sends an event or a line, if there is room for it now. */
function tell(message) {
  const body = encoded(message);
  if (body.length > Math.min(EVENT_LIMIT, limits.frame) || channel.writableNeedDrain) dropped += 1;
  else channel.write(framed(body));
  tellDropped();
}

function tellDropped() {
  if (dropped === 0 || channel.writableNeedDrain) return;
  channel.write(frame(["dropped", dropped]));
  dropped = 0;
}

const telemetry = {
  execute(event, measurements, metadata = {}) {
    const name = Array.isArray(event) ? event : String(event).split(".");
    if (name.length === 0 || !name.every((word) => typeof word === "string" && word) || NOT_OURS.includes(name[0]))
      throw new TypeError(`not a name for an event: ${event}`);
    if (!Object.values(measurements).every(Number.isFinite)) throw new TypeError("measurements are finite numbers");
    tell(["event", name, measurements, metadata]);
  },
  log(level, text, fields = {}) {
    if (!LEVELS.includes(level)) throw new TypeError(`a level is one of ${LEVELS}`);
    tell(["log", level, String(text), fields]);
  },
};

// -- calls ------------------------------------------------------------------------------------------------------------

let target;
let kinds;
const running = new Map(); // AbortControllers by the id of the call
const paused = new Set(); // ids of those whose items nobody reads now
const streams = new EventEmitter().setMaxListeners(0); // "look": those that stand still may perhaps go on
let stopping = false;

async function load(specification, [args, kwargs]) {
  const [file, name] = specification.split(/:(?=[^:/]*$)/); // the name may be missing
  const module = await import(pathToFileURL(resolve(file)));
  const found = name === undefined ? module : module[name];
  if (found === undefined) throw new TypeError(`there is no ${specification}`);
  target = typeof found === "function" ? new found(...args, { ...kwargs, telemetry }) : found;
  kinds = {};
  for (let at = target; at && at !== Object.prototype; at = Object.getPrototypeOf(at))
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(at)))
      if (typeof value === "function" && name !== "constructor" && !name.startsWith("_"))
        kinds[name] ??= value.constructor.name.includes("Generator") ? "generator" : "function";
}

/** A call from its begin to its one answer. */
async function call(id, operation, [args, kwargs], stream, sent) {
  const abort = new AbortController();
  const { signal } = abort;
  const session = sent && { id: sent[0], data: sent[1] };
  const begun = process.hrtime.bigint();
  const times = () => [Number(process.hrtime.bigint() - begun), null, null]; // calls overlap: the rest is nobody's
  running.set(id, abort);
  let answer;
  try {
    if (!Object.hasOwn(kinds, operation)) throw new TypeError(`there is no operation ${operation}`);
    const result = await target[operation](...args, { ...kwargs, signal, session, telemetry });
    if (stream !== (typeof result?.next === "function"))
      throw new PayloadError(`it returned ${stream ? "no" : "a"} generator`);
    if (stream) await sendItems(id, result, signal);
    answer = frame([stream ? "end" : "reply", id, stream ? null : result, dataOf(session), times()]);
  } catch (error) {
    const interrupted = signal.aborted && error?.name === "AbortError";
    const kind = error instanceof PayloadError ? "payload" : interrupted ? "cancelled" : "operation";
    answer = failed(id, kind, error, times());
  }
  running.delete(id);
  paused.delete(id);
  channel.write(answer); // what the target printed is out: Node writes to pipes at once
  tellDropped();
  leaveWhenDone();
}

/** What goes back of a session, with the answer. */
function dataOf(session) {
  if (session === null) return null;
  if (session.data?.constructor !== Object) throw new PayloadError("session.data is to be a plain object");
  const size = encoded(session.data).length;
  if (size > limits.data) throw new PayloadError(`session.data of ${size} bytes is over session_data_limit`);
  return session.data;
}

/** Sends what a generator yields; leaving the loop early closes it. */
async function sendItems(id, generator, signal) {
  for await (const item of generator) {
    signal.throwIfAborted();
    channel.write(frame(["item", id, item]));
    while (paused.has(id) || channel.writableNeedDrain) await once(streams, "look", { signal });
    await turn(undefined, { signal }); // lets messages be read, whatever the generator does
  }
}

/** Ends the process when it was told to stop and has answered everything. */
function leaveWhenDone() {
  if (stopping && running.size === 0) channel.write("", () => process.exit(0)); // once all before it is written
}

// -- messages ---------------------------------------------------------------------------------------------------------

const messages = {
  call, // begins at once: a worker without shared memory is never handed more than it may run
  cancel: (id) => running.get(id)?.abort(),
  pause: (id) => running.has(id) && paused.add(id),
  resume(id) {
    paused.delete(id);
    streams.emit("look");
  },
  ping(token) {
    const [id = null] = running.keys();
    channel.write(frame(["pong", token, id, process.memoryUsage.rss()]));
  },
  stop() {
    stopping = true;
    leaveWhenDone();
  },
};

/** Goes with the parent, and takes along what was started here: all of our process group. */
function goWithParent() {
  const go = () => process.kill(-process.pid, "SIGKILL");
  channel.on("end", go).on("error", go);
  // The life-line is watched by a thread of its own, which also sees its end when we are busy.
  const fd = Number(process.env.POOL_MONITOR_LIFELINE);
  const program = `new (require("node:net").Socket)({ fd: ${fd} }).on("error", ${go}).on("end", ${go}).resume()`;
  new Worker(program, { eval: true }).unref();
}

async function main() {
  goWithParent();
  channel.on("drain", tellDropped).on("drain", () => streams.emit("look"));
  const incoming = received();
  const { value: hello } = await incoming.next();
  if (!hello?.protocols.includes(1) || !hello.codecs.includes("json")) throw new Error("no common protocol or codec");
  Object.assign(limits, { frame: hello.frame_limit, data: hello.session_data_limit });
  const python = `node ${process.versions.node}`; // whatever the language is
  channel.write(frame({ type: "hello", protocol: 1, codec: "json", python }));
  const { value: init } = await incoming.next();
  try {
    await load(init[1], init[3]);
  } catch (error) {
    channel.write(failed(0, "operation", error, [0, 0, null]), () => process.exit(1));
    return;
  }
  channel.write(frame(["ready", kinds]));
  for await (const [type, ...values] of incoming) {
    if (!Object.hasOwn(messages, type)) throw new Error(`protocol error: a message of type ${type}`);
    messages[type](...values);
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
