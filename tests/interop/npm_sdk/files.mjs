// Every method on single files and directories, the way an application uses them, and wrongly. The script sees the same disk as the server.

import fs from "node:fs";
import { connect } from "./stage.mjs";
import { note, outcome, refusal, step } from "./transcript.mjs";

const OVER_2_MIB = 2 * 1024 * 1024 + 1;

const client = await connect();
const here = `${process.cwd()}/files`;
const at = (name) => ({ path: `${here}/${name}` });
const mode = (name) => (fs.statSync(`${here}/${name}`).mode & 0o7777).toString(8);
const text = (name) => fs.readFileSync(`${here}/${name}`, "utf8");
const exists = (name) => fs.lstatSync(`${here}/${name}`, { throwIfNoEntry: false }) !== undefined;
const link = (target, name) => fs.symlinkSync(target, `${here}/${name}`);
const put = (name, content = "") => fs.writeFileSync(`${here}/${name}`, content);
const byName = (entries) => entries.sort((one, other) => (one.name < other.name ? -1 : 1));
const list = async (query) => byName(await client.listFsEntries(query));
const read = async (query) => Buffer.from(await client.readFsFile(query)).toString("latin1");

// Directories
await step("mkdir", client.mkdirFs(at("a/b/c")));
await step("mkdir again", client.mkdirFs(at("a/b")));
put("plain", "plain text");
await step("mkdir on a file", client.mkdirFs(at("plain")));
await step("mkdir below a file", client.mkdirFs(at("plain/x")));
await step("mkdir in the home", client.mkdirFs({ path: "projects/one" }));

// Writing
await step("write", client.writeFsFile(at("w/text"), "grüße\n"));
note("written", text("w/text"));
await step("write nothing", client.writeFsFile(at("w/empty"), ""));
await step("write bytes", client.writeFsFile(at("w/bytes"), new Uint8Array(256).map((_, index) => index)));
await step("write a blob", client.writeFsFile(at("w/blob"), new Blob(["blob"])));
put("w/secret", "long text that is there");
fs.chmodSync(`${here}/w/secret`, 0o600);
await step("write again", client.writeFsFile(at("w/secret"), "short"));
note("written again", { text: text("w/secret"), mode: mode("w/secret") });
link("text", "w/link");
await step("write through a link", client.writeFsFile(at("w/link"), "by the link"));
note("written through a link", { text: text("w/text"), isLink: fs.lstatSync(`${here}/w/link`).isSymbolicLink() });
await step("write on a directory", client.writeFsFile(at("a"), "x"));
await refusal("write below a file", client.writeFsFile(at("plain/x"), "x"));
await step("write in the home", client.writeFsFile({ path: "projects/two/notes.md" }, "notes"));
await step("write without a name", client.writeFsFile({ path: "" }, "x"));

// Reading
await step("read", read(at("plain")));
await step("read bytes", read(at("w/bytes")));
await step("read nothing", read(at("w/empty")));
await step("read through a link", read(at("w/link")));
await step("read in the home", read({ path: "projects/./two/notes.md" }));
await step("read a directory", read(at("a")));
await step("read what is not there", read(at("none")));
await step("read a device", read({ path: "/dev/null" }));
await refusal("read nothing named", read({}));

// Names and paths
for (const name of ["two words", "grüße-日本.txt", "100%25", "a+b&c=d?e#f", "line\nbreak", "-rf", "quote'\""]) {
  await step(`write named ${name}`, client.writeFsFile(at(`names/${name}`), name));
  await step(`read named ${name}`, read(at(`names/${name}`)));
}
await step("list names", list(at("names")));
await step("up from the home", read({ path: "projects/../../secret" }));
await step("up from a root", client.statFs({ path: `${here}/a/../plain` }));
await step("a tilde", client.writeFsFile({ path: "~/x" }, "x"));
await refusal("a name too long", client.writeFsFile(at("n".repeat(300)), "x"));
await step("a NUL", client.writeFsFile(at("nul\0byte"), "x"));

// Listing and stat
fs.mkdirSync(`${here}/list/folder`, { recursive: true });
put("list/.hidden", "12345");
link("folder", "list/to-folder");
link(".hidden", "list/to-file");
link("nowhere", "list/dangling");
await step("list", list(at("list")));
await step("list through a link", list(at("list/to-folder")));
const known = async (entries) => (await entries).filter(({ name }) => ["projects", "~"].includes(name));
await step("list the home", known(list()));
await step("list nothing", known(list({ path: "" })));
await step("list a file", list(at("plain")));
await step("list what is not there", list(at("none")));
await step("stat a file", client.statFs(at("plain")));
await step("stat a directory", client.statFs(at("a")));
await step("stat the home", client.statFs({ path: "." }));
await step("stat a link to a file", client.statFs(at("list/to-file")));
await step("stat a link to a directory", client.statFs(at("list/to-folder")));
await step("stat a dangling link", client.statFs(at("list/dangling")));
await step("stat what is not there", client.statFs(at("none")));
const { result: device } = await outcome(client.statFs({ path: "/dev/null" }));
note("stat a device", device.entryType);

// Moving
put("m1", "one");
put("m2", "two");
await step("move", client.moveFs({ from: `${here}/m1`, to: `${here}/moved/deep/m1` }));
note("moved", { gone: !exists("m1"), text: text("moved/deep/m1") });
await step("move onto another", client.moveFs({ from: `${here}/m2`, to: `${here}/moved/deep/m1` }));
await step("move over another", client.moveFs({ from: `${here}/m2`, to: `${here}/moved/deep/m1`, overwrite: true }));
note("moved over another", text("moved/deep/m1"));
await step("move a directory", client.moveFs({ from: `${here}/moved`, to: `${here}/home of it` }));
await step("move what is not there", client.moveFs({ from: `${here}/none`, to: `${here}/m3` }));
put("kept", "kept");
await step(
  "move nothing over a file",
  client.moveFs({ from: `${here}/none`, to: `${here}/kept`, overwrite: true }),
);
note("after moving nothing over a file", exists("kept"));
put("itself", "itself");
await step("move onto itself", client.moveFs({ from: `${here}/itself`, to: `${here}/itself`, overwrite: true }));
note("after moving onto itself", exists("itself"));
fs.mkdirSync(`${here}/over/full`, { recursive: true });
put("over/full/file");
put("over/file", "now a file");
await step(
  "move over a directory",
  client.moveFs({ from: `${here}/over/file`, to: `${here}/over/full`, overwrite: true }),
);
note("after moving over a directory", fs.lstatSync(`${here}/over/full`).isFile());
await step("move into itself", client.moveFs({ from: `${here}/a`, to: `${here}/a/b/inside` }));
link("nowhere", "dangling");
await step("move a dangling link", client.moveFs({ from: `${here}/dangling`, to: `${here}/dangling too` }));
await step("move in the home", client.moveFs({ from: "projects/two", to: "projects/three" }));
if (fs.statSync("/dev/shm", { throwIfNoEntry: false })?.dev !== fs.statSync(here).dev) {
  const far = fs.mkdtempSync("/dev/shm/scenario-");
  put("traveller", "far");
  const { status } = await outcome(client.moveFs({ from: `${here}/traveller`, to: `${far}/traveller` }));
  note("move to another file system", { status, gone: !exists("traveller"), there: fs.readdirSync(far) });
  fs.rmSync(far, { recursive: true });
}
await refusal("move nowhere", client.moveFs({ from: `${here}/plain` }));

// Deleting
put("d1");
fs.mkdirSync(`${here}/d/empty`, { recursive: true });
fs.mkdirSync(`${here}/d/full`);
put("d/full/file");
await step("delete a file", client.deleteFsEntry(at("d1")));
await step("delete it again", client.deleteFsEntry(at("d1")));
await step("delete a directory", client.deleteFsEntry(at("d/empty")));
await step("delete a full directory", client.deleteFsEntry(at("d/full")));
await step("delete a full directory, not recursively", client.deleteFsEntry({ ...at("d/full"), recursive: false }));
link("full", "d/link1");
await step("delete a link to a directory", client.deleteFsEntry(at("d/link1")));
link("full", "d/link2");
await step("delete a link to a directory recursively", client.deleteFsEntry({ ...at("d/link2"), recursive: true }));
link("full/file", "d/link3");
await step("delete a link to a file", client.deleteFsEntry(at("d/link3")));
note("what the links led to", exists("d/full/file"));
link("nowhere", "d/link4");
await step("delete a dangling link", client.deleteFsEntry(at("d/link4")));
await step("delete a full directory recursively", client.deleteFsEntry({ ...at("d/full"), recursive: true }));
await step("delete a file recursively", client.deleteFsEntry({ path: "projects/three/notes.md", recursive: true }));
await refusal("delete perhaps recursively", client.deleteFsEntry({ ...at("d"), recursive: "yes" }));

// The public server may close the connection while the body is still under way: then there is no answer at all.
const large = await client.writeFsFile(at("large"), new Uint8Array(OVER_2_MIB)).then(
  ({ bytesWritten }) => bytesWritten,
  () => "refused",
);
note("write more than 2 MiB", large);
await client.dispose();
