// A terminal by REST and by the package's WebSocket session, used as an application does, and wrongly.

import { connect, token } from "./stage.mjs";
import { note, outcome, refusal, step } from "./transcript.mjs";

const BROKEN_END = "\n[process stream error: I/O error (os error 5)]\n"; // of the public server, where that is in time
const ENOUGH_MS = 20_000;

const client = await connect();
const create = (script) => client.createProcess({ command: "sh", args: ["-c", script], tty: true });
/** A shell of three words. */
const PROMPT = `printf "> "
while read word; do
  case $word in size) stty size;; exit) exit 7;; *) echo "<$word>";; esac
  printf "> "
done`;

/** A viewer that takes down all it is told. */
function view(id, options) {
  const session = client.connectProcessTerminal(id, options);
  const told = [];
  let text = "";
  let wake = () => {};
  let code;
  const hears = (kind) => (what) => {
    told.push([kind, what instanceof Error ? what.message : what]);
    wake();
  };
  session.onReady(hears("ready"));
  session.onExit(hears("exit"));
  session.onError(hears("error"));
  session.onData((bytes) => {
    text += Buffer.from(bytes).toString();
    wake();
  });
  session.socket.addEventListener("close", (event) => (code = event.code));
  const until = async (met) => {
    while (!met()) await new Promise((resolve) => (wake = resolve));
  };
  return {
    session,
    told,
    /** What was written to it, without what the public server adds at the end. */
    text: () => text.replace(BROKEN_END, "").replaceAll("\r\n", "\n"),
    code: () => code,
    /** What the last frame says of the end. */
    exit() {
      const [kind, { exitCode }] = told.at(-1);
      return { kind, exitCode };
    },
    ready: () => until(() => told.some(([kind]) => kind === "ready")),
    sees: (wanted) => until(() => text.replaceAll("\r\n", "\n").includes(wanted)),
    hears: (count) => until(() => told.length >= count),
    send: (frame) => session.socket.send(typeof frame === "string" ? frame : JSON.stringify(frame)),
  };
}

async function until(id, wanted) {
  for (;;) {
    const { entries } = await client.getProcessLogs(id);
    const text = entries.map(({ data }) => Buffer.from(data, "base64").toString()).join("");
    if (text.includes(wanted)) return text;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// By REST alone
await step("create", client.createProcess({ command: "cat", tty: true, interactive: true }));
await step("input", client.sendProcessInput("proc_1", { data: "hello\n", encoding: "text" }));
await until("proc_1", "hello\r\nhello\r\n");
const logs = await client.getProcessLogs("proc_1");
note("logs", { stream: logs.stream, streams: [...new Set(logs.entries.map(({ stream }) => stream))] });
note("logs of a stream that is none", (await client.getProcessLogs("proc_1", { stream: "stdout" })).entries);
note("logs of all streams", (await client.getProcessLogs("proc_1", { stream: "combined" })).entries.length > 0);
await step("resize", client.resizeProcessTerminal("proc_1", { cols: 132, rows: 43 }));
await step("resize to nothing", client.resizeProcessTerminal("proc_1", { cols: 0, rows: 0 }));
await refusal("resize beyond numbers", client.resizeProcessTerminal("proc_1", { cols: 65_536, rows: 24 }));
await refusal("resize below numbers", client.resizeProcessTerminal("proc_1", { cols: -1, rows: 24 }));
await refusal("resize one way", client.resizeProcessTerminal("proc_1", { cols: 80 }));
await client.sendProcessInput("proc_1", { data: "\x04", encoding: "text" });
const catEnd = view("proc_1");
await catEnd.session.closed;
await step("ended by the key for it", client.getProcess("proc_1"));
await step("resize afterwards", client.resizeProcessTerminal("proc_1", { cols: 80, rows: 24 }));
await step("input afterwards", client.sendProcessInput("proc_1", { data: "" }));
note("the log", (await until("proc_1", "hello")).replace(BROKEN_END, ""));

// By WebSocket
const url = new URL(client.buildProcessTerminalWebSocketUrl("a/b ü", { accessToken: "t&t" }));
note("url", { protocol: url.protocol, path: url.pathname, query: url.search });
const { id } = await create(PROMPT);
await until(id, "> ");
const one = view(id);
await one.ready();
note("ready", one.told);
one.session.sendInput("first\n");
await one.sees("<first>\n> ");
note("input is echoed and answered", one.text().endsWith("first\n<first>\n> "));
note("what a viewer sees that comes late", one.text().startsWith("> "));
one.session.sendInput(new TextEncoder().encode("zwölf\n"));
await one.sees("<zwölf>\n");
one.send({ type: "input", data: Buffer.from("based\n").toString("base64"), encoding: "base64" });
await one.sees("<based>\n");
one.send({ type: "input", data: "plain\n" });
await one.sees("<plain>\n");
one.session.sendInput("size\n");
await one.sees("24 80\n");
one.session.resize({ cols: 132, rows: 43 });
one.session.sendInput("size\n");
await one.sees("43 132\n");
await client.resizeProcessTerminal(id, { cols: 100, rows: 30 });
one.session.sendInput("size\n");
await one.sees("30 100\n");
note("nothing but ready until now", one.told.length);

// Bad frames: each is answered, and the connection stays
const bad = {
  "no JSON": "{",
  "no object": "[]",
  "no type": "{}",
  "an unknown type": '{"type":"ping"}',
  "no data": '{"type":"input"}',
  "data that is no text": '{"type":"input","data":1}',
  "an unknown encoding": '{"type":"input","data":"x","encoding":"hex"}',
  "bad base64": '{"type":"input","data":"*","encoding":"base64"}',
  "a size that is none": '{"type":"resize","cols":-1,"rows":2}',
};
for (const [what, frame] of Object.entries(bad)) {
  const before = one.told.length;
  one.send(frame);
  await one.hears(before + 1);
  note(`a frame with ${what}`, one.told.at(-1));
}
let before = one.told.length;
one.session.socket.send(new Uint8Array([1, 2, 3]));
await one.hears(before + 1);
note("a frame of bytes", one.told.at(-1));
before = one.told.length;
one.session.sendInput("x".repeat(65_537));
await one.hears(before + 1);
note("a frame with too much", one.told.at(-1));
one.session.sendInput("alive\n");
await one.sees("<alive>\n");
note("a terminal after bad frames", one.told.length - before);

// Several viewers
const two = view(id);
await two.ready();
two.session.sendInput("from two\n");
const both = [one, two];
await Promise.all(both.map((viewer) => viewer.sees("<from two>\n> ")));
note("two viewers see the same", both.map((viewer) => viewer.text().slice(viewer.text().indexOf("from two"))));
two.session.close();
await two.session.closed;
one.session.sendInput("still here\n");
await one.sees("<still here>\n");
note("a viewer that has left", { status: (await client.getProcess(id)).status, saw: two.text().includes("still") });
const three = view(id);
await three.ready();
three.send({ type: "close" });
await three.session.closed;
note("a viewer that is closed", { code: three.code(), told: three.told });
const raw = client.connectProcessTerminalWebSocket(id);
const frames = [];
await new Promise((resolve) => raw.addEventListener("message", ({ data }) => resolve(frames.push(data))));
raw.close();
note("the first frame", frames[0]);

// The end
one.session.sendInput("exit\n");
await one.session.closed;
note("the end of a terminal", { told: one.told.slice(-1), code: one.code() });
await step("the record at the end", client.getProcess(id));
const late = view(id);
await late.session.closed;
note("a viewer after the end", { told: late.told, code: late.code() });
note("a viewer after the end sees what was there", late.text().includes("<first>"));

const { id: killed } = await create("echo ready; read word; kill -9 $$");
await until(killed, "ready");
const witness = view(killed);
await witness.ready();
witness.session.sendInput("\n");
await witness.session.closed;
note("the end by a signal", witness.exit());

const { id: loop } = await create("trap 'echo interrupted; read word; exit 5' INT; echo ready; while :; do sleep 0.05; done");
await until(loop, "ready");
const keys = view(loop);
await keys.ready();
keys.session.sendInput("\x03");
await keys.sees("interrupted\n");
keys.session.sendInput("\n");
await keys.session.closed;
note("Ctrl-C", keys.exit());

const { id: shell } = await create('read word; echo "term=$TERM"; tty | sed "s/[0-9]*$/N/"; read word');
const shown = view(shell);
await shown.ready();
shown.session.sendInput("\n");
await shown.sees("N\n");
shown.session.close();
note("the kind of terminal", /term=(.*)/.exec(shown.text())[1]);
note("the terminal's device", /\/dev\/.*/.exec(shown.text())[0]);

const { id: doomed } = await create("sleep 60 & echo ready; wait");
await until(doomed, "ready");
const mourner = view(doomed);
await mourner.ready();
await step("kill", client.killProcess(doomed, { waitMs: ENOUGH_MS }));
await mourner.session.closed;
note("the end by a kill", mourner.exit());
await step("delete", client.deleteProcess(doomed));

// Who has no terminal
for (const [what, wrong] of [
  ["nobody", "nope"],
  ["what was deleted", doomed],
  ["what has no terminal", (await client.createProcess({ command: "cat" })).id],
]) {
  const viewer = view(wrong);
  await viewer.hears(1); // undici up to 6 tells of a refused upgrade by the error alone
  const answer = await fetch(client.buildProcessTerminalWebSocketUrl(wrong).replace("ws:", "http:"), {
    headers: token ? { authorization: `Bearer ${token}` } : {},
  });
  note(`a terminal of ${what}`, { told: viewer.told, withoutUpgrade: answer.status });
}
await client.dispose();
