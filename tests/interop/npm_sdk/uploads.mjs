// Many files in one archive, as an application uploads them, and as somebody would who means harm.

import fs from "node:fs";
import { gzipSync } from "node:zlib";
import { connect } from "./stage.mjs";
import { FIFO, FOLDER, HARD_LINK, LINK, tar } from "./tar.mjs";
import { note, outcome, refusal, step } from "./transcript.mjs";

const LISTED = 1024; // the paths of an upload that are told

const client = await connect();
const here = `${process.cwd()}/uploads`;
fs.mkdirSync(here);
const at = (name) => ({ path: `${here}/${name}` });
const mode = (name) => (fs.statSync(`${here}/${name}`).mode & 0o7777).toString(8);
const text = (name) => fs.readFileSync(`${here}/${name}`, "utf8");
const exists = (name) => fs.lstatSync(`${here}/${name}`, { throwIfNoEntry: false }) !== undefined;
const put = (name, content = "") => fs.writeFileSync(`${here}/${name}`, content);
const upload = (name, ...entries) => client.uploadFsBatch(tar(...entries), at(name));
const executable = { name: "dir/run.sh", content: "#!/bin/sh\n", mode: 0o755 };
const folder = { name: "dir/", type: FOLDER, mode: 0o750 };
await step("upload", upload("u1", { name: "./", type: FOLDER, mode: 0o755 }, folder, executable, { name: "./empty" }));
note("uploaded", {
  modes: [mode("u1/dir"), mode("u1/dir/run.sh"), mode("u1/empty")],
  text: text("u1/dir/run.sh"),
  mtime: fs.statSync(`${here}/u1/dir/run.sh`).mtimeMs,
});
await step("upload over it", upload("u1", { ...executable, content: "new\n", mode: 0o600 }, { name: "more" }));
note("uploaded over it", { text: text("u1/dir/run.sh"), mode: mode("u1/dir/run.sh"), empty: exists("u1/empty") });
await step("upload twice the same", upload("u2", { name: "x", content: "1" }, { name: "x", content: "2" }));
note("uploaded twice the same", text("u2/x"));
await step("upload to the home", client.uploadFsBatch(tar({ name: "uploaded" })));
await step("upload nothing", client.uploadFsBatch(new Uint8Array(), at("u3")));
const original = { name: "file", content: "1" };
await step("upload a link", upload("u4", original, { name: "link", type: LINK, target: "file" }));
note("uploaded a link", fs.readlinkSync(`${here}/u4/link`));
await step("upload a hard link", upload("u4", original, { name: "hard", type: HARD_LINK, target: "file" }));
note("uploaded a hard link", exists("u4/hard") && text("u4/hard"));
await step("upload a FIFO", upload("u5", { name: "pipe", type: FIFO }, { name: "next" }));
await step("upload setuid", upload("u6", { name: "tool", mode: 0o4755 }));
note("uploaded setuid", mode("u6/tool"));
await step("upload with the date of 1970", upload("u7", { name: "old", mtime: 0 }));
note("uploaded with the date of 1970", fs.statSync(`${here}/u7/old`).mtimeMs);

const many = Array.from({ length: LISTED + 50 }, (_, index) => ({ name: `f${index}` }));
const { result: listed } = await outcome(upload("u8", ...many));
note("upload many", {
  listed: listed.paths.length,
  truncated: listed.truncated,
  there: fs.readdirSync(`${here}/u8`).length,
});

// What must not be unpacked
await step("upload upwards", upload("bad1", { name: "first" }, { name: "../escaped" }));
note("uploaded upwards", { first: exists("bad1/first"), escaped: exists("escaped") });
await step("upload to a root", upload("bad2", { name: "first" }, { name: "/tmp/escaped" }));
note("uploaded to a root", exists("bad2/first"));
fs.mkdirSync(`${here}/outside`);
const escaping = [{ name: "out", type: LINK, target: "../outside" }, { name: "out/escaped", content: "x" }];
const { status: through } = await outcome(upload("bad3", { name: "first" }, ...escaping));
note("upload through a link", { status: through, first: exists("bad3/first"), escaped: exists("outside/escaped") });
const elsewhere = fs.mkdtempSync("/tmp/sa-"); // a tar has room for a short path alone
fs.writeFileSync(`${elsewhere}/passwords`, "secret");
const stealing = { name: "stolen", type: HARD_LINK, target: `${elsewhere}/passwords` };
const { status: stolen } = await outcome(upload("bad4", { name: "first" }, stealing));
note("upload a hard link outwards", { status: stolen, first: exists("bad4/first"), stolen: exists("bad4/stolen") });
fs.rmSync(elsewhere, { recursive: true });
const cut = tar({ name: "first" }, { name: "whole", content: "x".repeat(2000) }).slice(0, 1800);
const { status: cutStatus } = await outcome(client.uploadFsBatch(cut, at("bad5")));
note("upload cut short", { status: cutStatus, first: exists("bad5/first") });
const { status: notTar } = await outcome(client.uploadFsBatch("no archive at all", at("bad6")));
note("upload what is no archive", notTar);
const { status: packed } = await outcome(client.uploadFsBatch(gzipSync(tar({ name: "x" })), at("bad7")));
note("upload a packed archive as a plain one", packed);
put("plain");
await refusal("upload onto a file", upload("plain", { name: "x" }));
await client.dispose();
