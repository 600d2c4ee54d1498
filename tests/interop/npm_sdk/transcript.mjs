// A transcript: what a server answers, step by step, in words that are the same on every run and for every server.

import { SandboxAgentError } from "sandbox-agent";
import { tell, told } from "./stage.mjs";

/** Where the server lives: what a run cannot share with another one. */
const places = await told();

const NOW_WITHIN_MS = 60_000;
const REASON = /(invalid terminal frame|invalid base64 input): .*$/s; // of the parser, in its own words
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?\+00:00$/;

const isNow = (ms) => Number.isInteger(ms) && Math.abs(Date.now() - ms) < NOW_WITHIN_MS;
const moment = (value) => (isNow(value) ? "<now>" : value);

/** Members whose values differ from run to run, and when they are right. */
const CHANGING = {
  modified: (value) => (RFC3339.test(value) && isNow(Date.parse(value)) ? "<now>" : value),
  createdAtMs: moment,
  exitedAtMs: moment,
  timestampMs: moment,
  pid: (value) => (Number.isInteger(value) && value > 1 ? "<pid>" : value),
  durationMs: (value) => (Number.isInteger(value) && value >= 0 ? "<ms>" : value),
};

/** The same value without what belongs to this run. */
export function plain(value) {
  if (typeof value === "string") {
    const text = value.replace(REASON, "$1: <reason>");
    return Object.entries(places).reduce((said, [name, path]) => said.replaceAll(path, `<${name}>`), text);
  }
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  const members = Object.entries(value).map(([name, each]) => [name, CHANGING[name]?.(each) ?? plain(each)]);
  const result = Object.fromEntries(members);
  if (result.entryType === "directory") delete result.size; // the file system's own business
  return result;
}

/** What came of a call: its result, or the error as the package gives it to an application. */
export async function outcome(promise) {
  try {
    const result = await promise;
    return { result: result === undefined ? "<nothing>" : plain(result) };
  } catch (error) {
    if (!(error instanceof SandboxAgentError)) throw error;
    const { type, title, detail, details } = error.problem ?? {};
    return { status: error.status, ...plain({ type, title, detail, details }) };
  }
}

/** One step that is a call of the package. */
export async function step(what, promise) {
  tell(what, await outcome(promise));
}

/** One step of which only the status counts: the rest is in a server's own words, or no problem document at all. */
export async function refusal(what, promise) {
  const { status } = await outcome(promise);
  tell(what, { status });
}

/** One step that is seen by other eyes than the package's. */
export function note(what, seen) {
  tell(what, { seen: plain(seen) });
}

/** Whether a promise is settled within so many milliseconds. */
export async function within(ms, promise) {
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, ms, false)));
  const result = await Promise.race([promise.then(() => true), late]);
  clearTimeout(timer);
  return result;
}
