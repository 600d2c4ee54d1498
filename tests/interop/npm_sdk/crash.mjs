// The agent dies again and again; the client must not.

import { connect, failure, listen, prompt, state, tell, turn } from "./stage.mjs";

const client = await connect();
const session = await client.createSession({ agent: "mock", mode: "plan" });
const bystander = await client.createSession({ agent: "mock" });
const ear = listen(session);
const other = listen(bystander);

/** The server says of each session when it is back: that has a session id, so the SDK shows it. */
const recovered = (count) => () =>
  [ear, other].every((each) => each.heard("_sandboxagent/session/recovered").length >= count);

await turn(session, ear, "/echo sunflower");
const before = await state(session, ear);

let permission;
bystander.onPermissionRequest((request) => (permission = request));
const waiting = failure(prompt(bystander, "/stream 1\n/permission"));
await other.until(() => other.heard("session/request_permission").length);
tell("crashed", await failure(prompt(session, "/stream 100\n/crash 3")));
tell("refused", await failure(prompt(session, "/echo too early")));
tell("bystander", await waiting);
await bystander.respondPermission(permission.id, "once"); // to nobody: who asked is dead

await ear.until(recovered(1));
await other.until(recovered(1));
const after = await state(session, ear);
tell("back", { before, after, numbers: ear.numbers(), failed: ear.heard("_sandboxagent/turn/failed") });
tell("bystander is back", await turn(bystander, other, "/stream 1"));

tell("killed", await failure(prompt(session, "/signal KILL")));
await ear.until(recovered(2));
await other.until(recovered(2));
tell("memory", await turn(session, ear, "/recite"));
tell("listed", await client.listAcpServers());
await client.dispose();
