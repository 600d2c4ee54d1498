// The server gives the agent up. Nothing but `initialize` starts it then, and an application can send that.

import { connect, failure, listen, prompt, tell, turn } from "./stage.mjs";

const client = await connect();
const session = await client.createSession({ agent: "mock" });
const ear = listen(session);
await turn(session, ear, "/echo sunflower");

tell("crashed", await failure(prompt(session, "/crash 3")));
let refused;
do refused = await failure(prompt(session, "/echo too early"));
while (/about to be started/.test(refused.message)); // it takes the server a moment to give up
tell("refused", refused);
await session.rawSend("initialize", { protocolVersion: 1 });
tell("back", await turn(session, ear, "/recite"));
await client.dispose();
