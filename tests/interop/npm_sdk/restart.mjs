// The server is stopped and started again while its client sits still. Headers are read anew with every request.

import { connect, failure, listen, prompt, tell, token, told, turn } from "./stage.mjs";

const headers = { authorization: `Bearer ${token}` };
const client = await connect({ token: undefined, headers });
const session = await client.createSession({ agent: "mock", mode: "plan" });
const ear = listen(session);
await turn(session, ear, "/echo sunflower");
const hanging = failure(prompt(session, "/stream 5\n/hang"));
await ear.until(() => ear.numbers().length === 5);

tell("ready");
headers.authorization = `Bearer ${(await told()).token}`;
tell("stopped", await hanging);
tell("remembers", await turn(session, ear, "/recite"));
await turn(session, ear, "/stream 100");
tell("streamed", { numbers: ear.numbers(), failed: ear.heard("_sandboxagent/turn/failed").length });
await client.dispose();
