// Every method on processes, the way an application uses them, and wrongly. The script sees the server's processes.

import fs from "node:fs";
import { connect } from "./stage.mjs";
import { note, outcome, refusal, step, within } from "./transcript.mjs";

const SOON_MS = 1_500; // far below what is waited for by mistake, far above what a busy machine needs
const LATE_SECONDS = 3; // what is waited for by mistake
const ENOUGH_MS = 20_000;

const client = await connect();
const here = process.cwd();
const sh = (script, more = {}) => ({ command: "sh", args: ["-c", script], ...more });
const run = (script, more) => client.runProcess(sh(script, more));
const create = (script, more) => client.createProcess(sh(script, more));
const alive = (pid) => fs.existsSync(`/proc/${pid}`) && !/\) Z /.test(fs.readFileSync(`/proc/${pid}/stat`, "latin1"));
const base64 = (text) => Buffer.from(text).toString("base64");
const plainText = (entries) => entries.map(({ data }) => Buffer.from(data, "base64").toString()).join("");
const unlimited = await client.getProcessConfig();

/** Wait until a process has written this; the one place where time is looked at, since a log is asked, not heard. */
async function until(id, text, query) {
  for (;;) {
    const { entries } = await client.getProcessLogs(id, query);
    if (plainText(entries).includes(text)) return entries;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function exited(id) {
  for (;;) {
    const record = await client.getProcess(id);
    if (record.status === "exited") return record;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A call, and whether it came back before what it must not wait for. */
async function promptly(what, promise) {
  const prompt = await within(SOON_MS, promise);
  const { result, status } = await outcome(promise);
  note(what, { prompt, ...(result ? { exitCode: result.exitCode, timedOut: result.timedOut } : { status }) });
  return result;
}

// Configuration
await step("config", client.getProcessConfig());
const config = { ...unlimited, maxConcurrentProcesses: 7, maxOutputBytes: 1000, defaultRunTimeoutMs: 9_000 };
await step("set config", client.setProcessConfig(config));
await step("config as set", client.getProcessConfig());
await step("no processes", client.setProcessConfig({ ...config, maxConcurrentProcesses: 0 }));
await step("no time", client.setProcessConfig({ ...config, maxRunTimeoutMs: 0 }));
await step("no bytes", client.setProcessConfig({ ...config, maxLogBytesPerProcess: 0 }));
await step("less time than usual", client.setProcessConfig({ ...config, maxRunTimeoutMs: 5_000 }));
const { maxOutputBytes, ...lacking } = config;
await refusal("config lacks one", client.setProcessConfig(lacking));
await refusal("config below zero", client.setProcessConfig({ ...config, maxOutputBytes: -1 }));
await step("config restored", client.setProcessConfig(unlimited));

// Run
await step("run", run("echo out; echo err >&2; exit 3"));
await step("run true", client.runProcess({ command: "true" }));
await step("run with a variable", run("echo $WORD", { env: { WORD: "two words" } }));
await step("run somewhere", run("pwd", { cwd: here }));
await step("run anywhere", run("pwd"));
await step("run somewhere relative", run("pwd", { cwd: "." }));
await step("run with its terminal's name", run("echo $TERM"));
await step("run with another terminal's name", run("echo $TERM", { env: { TERM: "dumb" } }));
await step("run found by its own PATH", client.runProcess({ command: "ls", args: ["/none"], env: { PATH: "/nowhere" } }));
await step("run reading", run("cat; echo end"));
await step("run killed by itself", run("kill -9 $$"));
await step("run exactly to the limit", run("printf 12345", { maxOutputBytes: 5 }));
await step("run beyond the limit", run("printf 123456; printf abc >&2", { maxOutputBytes: 5 }));
await step("run without output", run("printf 123456", { maxOutputBytes: 0 }));
await step("run with bytes that are no text", run("printf '\\377\\376a'"));
await step("run cut within a character", run("printf 'aé'", { maxOutputBytes: 2 }));
const big = await client.runProcess({ command: "head", args: ["-c", "3000000", "/dev/zero"] });
note("run with much output", { length: big.stdout.length, truncated: big.stdoutTruncated });
await promptly("run too long", run(`echo begun; exec sleep ${LATE_SECONDS}`, { timeoutMs: 300 }));
await promptly("run too long with a child", run(`sleep ${LATE_SECONDS} & wait`, { timeoutMs: 300 }));
const survivor = Number((await run(`sleep ${LATE_SECONDS} >/dev/null 2>&1 & echo $!; wait`, { timeoutMs: 300 })).stdout);
note("what survives a run that took too long", alive(survivor));
await promptly("run with a child in the background", run(`sleep ${LATE_SECONDS} & echo begun`));
await step("run nothing", client.runProcess({ command: " " }));
await step("run what is not there", client.runProcess({ command: "no-such-program-anywhere" }));
await step("run nowhere", run("pwd", { cwd: `${here}/none` }));
await refusal("run with a NUL", client.runProcess({ command: "echo", args: ["a\0b"] }));
await refusal("run without a command", client.runProcess({ args: [] }));
await refusal("run with null for arguments", client.runProcess({ command: "true", args: null }));
await refusal("run with a number for an argument", client.runProcess({ command: "true", args: [1] }));
await step("list after runs", client.listProcesses());

// A process that lives
await step("create", client.createProcess({ command: "cat", cwd: here, interactive: true }));
await step("get", client.getProcess("proc_1"));
await step("list", client.listProcesses());
await step("list the user's", client.listProcesses({ owner: "user" }));
await step("list the desktop's", client.listProcesses({ owner: "desktop" }));
await refusal("list nobody's", client.listProcesses({ owner: "nobody" }));
await step("get what is not there", client.getProcess("nope"));
await step("get a name with a slash", client.getProcess("a/b ü"));

// Input and logs
await step("input", client.sendProcessInput("proc_1", { data: base64("one\n") }));
await until("proc_1", "one\n");
await step("input as text", client.sendProcessInput("proc_1", { data: "zwölf\n", encoding: "utf8" }));
await until("proc_1", "zwölf\n");
await step("input as text, too", client.sendProcessInput("proc_1", { data: "three\n", encoding: "text" }));
await until("proc_1", "three\n");
await step("input nothing", client.sendProcessInput("proc_1", { data: "" }));
await step("input in no encoding", client.sendProcessInput("proc_1", { data: "x", encoding: "UTF8" }));
await step("input that is not base64", client.sendProcessInput("proc_1", { data: "*" }));
await step("input to nobody", client.sendProcessInput("nope", { data: "" }));
await client.setProcessConfig({ ...unlimited, maxInputBytesPerRequest: 4 });
await step("input to the limit", client.sendProcessInput("proc_1", { data: "4444", encoding: "text" }));
await step("input beyond the limit", client.sendProcessInput("proc_1", { data: "55555", encoding: "text" }));
await client.setProcessConfig(unlimited);
await until("proc_1", "4444");
await step("logs", client.getProcessLogs("proc_1"));
await step("logs of one stream", client.getProcessLogs("proc_1", { stream: "stdout", tail: 1 }));
await step("logs of the other stream", client.getProcessLogs("proc_1", { stream: "stderr" }));
await step("logs of a terminal that is none", client.getProcessLogs("proc_1", { stream: "pty" }));
await step("logs, the last two", client.getProcessLogs("proc_1", { tail: 2 }));
await step("logs, the last none", client.getProcessLogs("proc_1", { tail: 0 }));
await step("logs since", client.getProcessLogs("proc_1", { since: 2 }));
await step("logs since, the last one", client.getProcessLogs("proc_1", { since: 1, tail: 1 }));
await step("logs since the end", client.getProcessLogs("proc_1", { since: 1000 }));
await step("logs of nobody", client.getProcessLogs("nope"));
await refusal("logs of no stream", client.getProcessLogs("proc_1", { stream: "stdlog" }));
await refusal("logs, the last some", client.getProcessLogs("proc_1", { tail: "some" }));

// Following
async function follow(id, query) {
  const entries = [];
  let wake = () => {};
  const subscription = await client.followProcessLogs(id, (entry) => (entries.push(entry), wake()), query);
  const heard = async (count) => {
    while (entries.length < count) await new Promise((resolve) => (wake = resolve));
  };
  return { entries, subscription, heard };
}

const whole = await follow("proc_1");
const later = await follow("proc_1", { since: 3 });
await whole.heard(4);
await client.sendProcessInput("proc_1", { data: "live\n", encoding: "text" });
await whole.heard(5);
await later.heard(2);
await step("followed", whole.entries);
await step("followed since", later.entries);
whole.subscription.close();
await whole.subscription.closed;
note("a follower that has gone", whole.entries.length);
note("follow nobody", await outcome(follow("nope")));

// The end of a process
await step("delete while it runs", client.deleteProcess("proc_1"));
await step("stop", client.stopProcess("proc_1"));
note("the stream ends with its process", await within(SOON_MS, later.subscription.closed));
await step("stop again", client.stopProcess("proc_1"));
await step("kill afterwards", client.killProcess("proc_1"));
await step("get afterwards", client.getProcess("proc_1"));
await step("input afterwards", client.sendProcessInput("proc_1", { data: "" }));
await step("resize what has no terminal", client.resizeProcessTerminal("proc_1", { cols: 80, rows: 24 }));
await step("delete", client.deleteProcess("proc_1"));
note("the stream ends with its record", await within(SOON_MS, later.subscription.closed));
await step("delete again", client.deleteProcess("proc_1"));
await step("stop nobody", client.stopProcess("nope"));
await step("kill nobody", client.killProcess("nope"));
await step("resize nobody", client.resizeProcessTerminal("nope", { cols: 80, rows: 24 }));

const { id: streams } = await create("echo out; echo err >&2; exit 5");
await step("exit", exited(streams));
await until(streams, "out\n");
await until(streams, "err\n");
for (const stream of ["stdout", "stderr"]) {
  const { entries } = await client.getProcessLogs(streams, { stream });
  note(`exit, its ${stream}`, { text: plainText(entries), streams: entries.map((entry) => entry.stream) });
}
const afterwards = await follow(streams);
await afterwards.heard(2);
note("follow what has ended", plainText(afterwards.entries.sort((one, other) => one.sequence - other.sequence)).length);
note("the stream of what has ended ends", await within(SOON_MS, afterwards.subscription.closed));
afterwards.subscription.close();

const { id: stubborn } = await create("trap '' TERM; echo ready; while :; do sleep 0.05; done");
await until(stubborn, "ready");
await step("stop what will not stop", client.stopProcess(stubborn, { waitMs: 100 }));
await step("kill what will not stop", client.killProcess(stubborn, { waitMs: ENOUGH_MS }));
await step("kill at once", create("exec sleep 60").then(({ id }) => client.killProcess(id)));
const { id: hasty } = await create("exec sleep 60");
note("stop without waiting", (await client.stopProcess(hasty, { waitMs: 0 })).id === hasty);
await step("stopped without waiting", exited(hasty));

const { id: parent } = await create("sleep 60 & echo $!; wait");
const child = Number(plainText(await until(parent, "\n")));
await step("kill a parent", client.killProcess(parent, { waitMs: ENOUGH_MS }));
note("its child survives", alive(child));

// Limits
await client.setProcessConfig({ ...unlimited, maxConcurrentProcesses: 1 });
const { id: only } = await create("exec sleep 60");
await step("create one too many", create("true"));
await client.killProcess(only, { waitMs: ENOUGH_MS });
await client.setProcessConfig({ ...unlimited, maxLogBytesPerProcess: 3000 });
const { id: chatty } = await create("while read word; do head -c 1000 /dev/zero; echo $word; done");
for (const word of ["one", "two", "three", "four", "five"]) {
  await client.sendProcessInput(chatty, { data: `${word}\n`, encoding: "text" });
  await until(chatty, `${word}\n`);
}
const kept = plainText((await client.getProcessLogs(chatty)).entries);
note("a log at its limit", { latest: kept.endsWith("five\n"), oldest: kept.includes("one"), within: kept.length <= 3000 });
await client.setProcessConfig({ ...unlimited, maxLogBytesPerProcess: 1000 });
const { id: gross } = await create("head -c 3000 /dev/zero"); // a pipe takes that, and gives it, in one piece
await exited(gross);
note("a log of one great chunk is empty", plainText((await client.getProcessLogs(gross)).entries).length === 0);
await client.setProcessConfig(unlimited);

// Names
const ids = [];
for (let count = 0; count < 4; count++) ids.push((await create("exit 0")).id);
const numbers = ids.map((id) => Number(/^proc_(\d+)$/.exec(id)[1]));
note("names are counted", numbers.map((number) => number - numbers[0]));
const { processes } = await client.listProcesses();
const order = processes.map(({ id }) => Number(id.slice("proc_".length)));
note("listed by number", order.every((number, index) => index === 0 || order[index - 1] < number));
await step("create nothing", client.createProcess({ command: "" }));
await step("create what is not there", client.createProcess({ command: "no-such-program-anywhere" }));
await step("create nowhere", create("true", { cwd: `${here}/none` }));
await refusal("create without a command", client.createProcess({}));
const { id: next } = await create("exit 0");
note("names lost by failures", Number(next.slice("proc_".length)) - numbers.at(-1) - 1);
await client.dispose();
