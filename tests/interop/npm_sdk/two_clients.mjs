// Two clients with a server process each, and the same JSON-RPC ids, since each counts from 0.

import { connect, failure, listen, prompt, tell, turn } from "./stage.mjs";

const COUNT = 300;

async function open() {
  const client = await connect();
  const session = await client.createSession({ agent: "mock", id: "ours" });
  return { client, session, ear: listen(session) };
}

const [ann, bob] = await Promise.all([open(), open()]);

const both = await Promise.all([ann, bob].map(({ session, ear }) => turn(session, ear, `/stream ${COUNT} 300`)));
tell("together", {
  stopReasons: both.map((each) => each.stopReason),
  numbers: [ann.ear.numbers(), bob.ear.numbers()],
});

// The question holds the turn open until the other client has crashed its agent and is gone.
const since = ann.ear.events.length;
const asking = new Promise((resolve) => ann.session.onPermissionRequest(resolve));
const streaming = turn(ann.session, ann.ear, `/stream ${COUNT} 300 300\n/permission\n/stream ${COUNT}`);
await ann.ear.until(() => ann.ear.numbers(since).length > 10);
tell("crashed", await failure(prompt(bob.session, "/crash 3")));
tell("listed", await ann.client.listAcpServers());
await bob.client.dispose();
await ann.session.respondPermission((await asking).id, "once");
const { stopReason } = await streaming;
tell("undisturbed", { stopReason, numbers: ann.ear.numbers(since) });
tell("left", await ann.client.listAcpServers());
await ann.client.dispose();
