// An agent that will not go, and the child it has: the SDK gives its DELETE two seconds.

import { connect, prompt, tell } from "./stage.mjs";

const client = await connect();
const session = await client.createSession({ agent: "mock" });
await prompt(session, "/ignore-sigterm\n/grandchild");
tell("ready");
await client.dispose();
tell("disposed");
