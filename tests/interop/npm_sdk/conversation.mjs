// A session from its creation to the end of its client, the way the package's own documentation does it.

import { connect, listen, prompt, state, tell, told, turn } from "./stage.mjs";

const STREAMED = 200;
const SLOW_SECONDS = 6; // longer than the server waits before it sends the head of an answer

const client = await connect();
const session = await client.createSession({
  agent: "mock",
  cwd: process.cwd(),
  mode: "plan",
  model: "mock-fast",
  thoughtLevel: "high",
});
const ear = listen(session);
tell("created", { modes: await session.getModes(), state: await state(session, ear) });

const slow = prompt(await client.createSession({ agent: "mock" }), `/sleep ${SLOW_SECONDS}`);

await session.setMode("normal");
await session.setModel("mock");
await session.setThoughtLevel("low");
tell("set", { modes: await session.getModes(), state: await state(session, ear) });

const { stopReason } = await turn(session, ear, `/stream ${STREAMED}`);
await turn(session, ear, "/state"); // what came twice, or late, has come by now
tell("streamed", { stopReason, numbers: ear.numbers(), indices: ear.events.map((event) => event.eventIndex) });

tell("nobody listens", await turn(session, ear, "/permission"));
let reply;
session.onPermissionRequest((request) => {
  tell("asked", { replies: request.availableReplies, title: request.toolCall.title });
  session.respondPermission(request.id, reply);
});
for (reply of ["once", "always", "reject"]) tell(reply, await turn(session, ear, "/permission Go on"));

tell("odd", await turn(session, ear, "/garbage 4\n/stderr a word\n/huge 1000000\n/echo end"));
tell("slow", await slow);

await prompt(session, "/grandchild");
tell("before the end", await client.listAcpServers());
await told();
const start = performance.now();
await client.dispose();
tell("disposed", { ms: performance.now() - start });
