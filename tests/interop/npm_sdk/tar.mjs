// Archives of any kind of entry, the bad ones too (POSIX ustar).

const BLOCK = 512;
export const FILE = "0";
export const HARD_LINK = "1";
export const LINK = "2";
export const FOLDER = "5";
export const FIFO = "6";

const padded = (bytes) => Buffer.concat([bytes, Buffer.alloc((BLOCK - (bytes.length % BLOCK)) % BLOCK)]);

function header({ name, type = FILE, mode = 0o644, target = "", mtime = 1_500_000_000 }, size) {
  const block = Buffer.alloc(BLOCK);
  const octal = (value, offset, width) => block.write(value.toString(8).padStart(width - 1, "0"), offset);
  block.write(name, 0);
  octal(mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(size, 124, 12);
  octal(mtime, 136, 12);
  block.write(type, 156);
  block.write(target, 157);
  block.write("ustar\x0000", 257);
  block.fill(" ", 148, 156);
  octal(block.reduce((sum, byte) => sum + byte, 0), 148, 7);
  return block;
}

/** The archive of these entries, whole: two empty blocks are its end. */
export function tar(...entries) {
  const parts = entries.flatMap((entry) => {
    const content = Buffer.from(entry.content ?? "");
    return [header(entry, content.length), padded(content)];
  });
  return new Uint8Array(Buffer.concat([...parts, Buffer.alloc(2 * BLOCK)]));
}
