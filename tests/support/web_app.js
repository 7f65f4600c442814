// An app of Telegram with its hidden browser, for proxy type WEB: opens the page at ADDRESS PORT as HOST with the
// capability BRIDGE, runs its script with a mock of the object that apps define, and carries each connection
// to a port of its own, which it prints, as a stream of the page. What the page does wrong ends it.
"use strict";
const http = require("http"), net = require("net"), vm = require("vm"), crypto = require("crypto");
const [address, port, host, bridge] = process.argv.slice(2);

function fail(what) {
  console.log("wrong " + what);
  process.exit(1);
}
process.on("uncaughtException", error => fail(error.stack));
process.on("unhandledRejection", error => fail(error.stack));

function request(method, path, headers, body) {
  return new Promise((done, failed) => {
    const ask = http.request({ host: address, port, method, path, headers: { Host: host, ...headers } }, answer => {
      const parts = [];
      answer.on("data", part => parts.push(part));
      answer.on("end", () => done({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts) }));
    });
    ask.on("error", failed);
    ask.end(body && Buffer.from(body));
  });
}

const exact = buffer => buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.length);

// As much of a browser's WebSocket as the page may use.
class WebSocket {
  constructor(url, protocol) {
    this.readyState = 0;
    this.bufferedAmount = 0;
    const path = new URL(url).pathname;
    if (!url.startsWith("wss://" + host + "/")) fail("address " + url);
    this.socket = net.connect(port, address, () => this.socket.write(
      `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: https://${host}\r\n`
      + `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: ${protocol}\r\n\r\n`));
    let input = Buffer.alloc(0);
    this.socket.on("data", bytes => {
      input = Buffer.concat([input, bytes]);
      if (this.readyState === 0) {
        const end = input.indexOf("\r\n\r\n");
        if (end < 0) return;
        const head = input.subarray(0, end).toString();
        if (!head.startsWith("HTTP/1.1 101 ") || !head.includes("Sec-WebSocket-Protocol: " + protocol)) return this.socket.destroy();
        input = input.subarray(end + 4);
        this.readyState = 1;
        this.onopen();
      }
      for (;;) {
        if (input.length < 2) return;
        let at = 2, len = input[1];
        if (len === 126) { if (input.length < 4) return; len = input.readUInt16BE(2); at = 4; }
        if (len === 127) { if (input.length < 10) return; len = Number(input.readBigUInt64BE(2)); at = 10; }
        if (input.length < at + len) return;
        const payload = input.subarray(at, at + len);
        if (input[0] === 0x82) this.onmessage({ data: exact(payload) });
        if (input[0] === 0x89) this.write(0x8a, payload);
        if (input[0] === 0x88) this.socket.end();
        input = input.subarray(at + len);
      }
    });
    this.socket.on("error", () => {});
    this.socket.on("close", () => { this.readyState = 3; this.onclose && this.onclose(); });
  }
  write(first, payload) {
    const len = payload.length;
    const head = Buffer.alloc(len < 126 ? 2 : len < 65536 ? 4 : 10);
    head[0] = first;
    head[1] = 0x80 | (len < 126 ? len : len < 65536 ? 126 : 127);
    if (head.length === 4) head.writeUInt16BE(len, 2);
    if (head.length === 10) head.writeBigUInt64BE(BigInt(len), 2);
    const mask = crypto.randomBytes(4), out = Buffer.from(payload);
    for (let i = 0; i < out.length; i += 1) out[i] ^= mask[i & 3];
    this.bufferedAmount += out.length;
    this.socket.write(Buffer.concat([head, mask, out]), () => { this.bufferedAmount -= out.length; });
  }
  send(bytes) {
    if (this.readyState !== 1) throw new Error("not open");
    this.write(0x82, Buffer.from(bytes));
  }
  close() { this.socket.end(); }
}
Object.assign(WebSocket, { CONNECTING: 0, OPEN: 1, CLOSING: 2, CLOSED: 3 });

// The app: streams by number, frames to the page, credit both ways.
const streams = new Map();
let welcomed = false, inited = false, next = 0xfffffe, tell = null;
const nonce = crypto.randomBytes(32).toString("base64url");

function frame(kind, id, payload) {
  const out = Buffer.alloc(8 + payload.length);
  out.writeUInt32BE(kind * 0x1000000 + id, 0);
  out.writeUInt32BE(payload.length, 4);
  payload.copy(out, 8);
  return out;
}
const number = value => { const out = Buffer.alloc(4); out.writeUInt32BE(value); return out; };
const toPage = (...frames) => tell({ data: exact(Buffer.concat(frames)) });

function heard(message) {
  if (typeof message === "string") {
    const what = JSON.parse(message);
    if (what.t === "tproxy-android-init") {
      if (inited || what.v !== 1 || what.nonce !== nonce || !object.onmessage) fail("init " + message);
      inited = true;
      // Newer builds exchange it after init.
      object.postMessage = heard;
      setImmediate(() => tell({ data: exact(Buffer.from([0x10, 0, 0, 0, 0, 0, 0, 1, 1])) }));
    } else if (what.t === "close" || what.state === "failed") fail("page " + message);
    return;
  }
  if (Object.prototype.toString.call(message) !== "[object ArrayBuffer]") fail("kind of message");
  const bytes = Buffer.from(message), id = bytes.readUInt32BE(0) & 0xffffff, payload = bytes.subarray(8);
  if (bytes.readUInt32BE(4) !== payload.length) fail("not one frame");
  if (!welcomed) {
    if (bytes.length !== 8 || bytes[0] !== 0x11) fail("first message");
    welcomed = true;
    return listen();
  }
  const stream = streams.get(id);
  if (!stream) return;
  switch (bytes[0]) {
    case 2: stream.socket.write(payload, () => toPage(frame(4, id, number(payload.length)))); break;
    case 3: streams.delete(id); stream.socket.end(); break;
    case 4: stream.credit += payload.readUInt32BE(0); pump(id, stream); break;
    default: fail("frame " + bytes[0]);
  }
}

function pump(id, stream) {
  while (stream.queue.length && stream.credit > 0) {
    const part = stream.queue.shift(), now = part.subarray(0, Math.min(part.length, stream.credit, 65536));
    if (now.length < part.length) stream.queue.unshift(part.subarray(now.length));
    stream.credit -= now.length;
    toPage(frame(2, id, now));
  }
  stream.queue.length > 8 ? stream.socket.pause() : stream.socket.resume();
}

function listen() {
  // Streams that are closed at once cost no lane.
  for (let id = 1; id <= 40; id += 1) toPage(frame(1, id, Buffer.alloc(0)), frame(3, id, Buffer.alloc(0)));
  const server = net.createServer(socket => {
    const id = next, stream = { socket, credit: 4 << 20, queue: [] };
    next = next === 0xffffff ? 100 : next + 1;
    streams.set(id, stream);
    toPage(frame(1, id, Buffer.alloc(0)));
    socket.on("data", bytes => { stream.queue.push(bytes); pump(id, stream); });
    socket.on("error", () => {});
    socket.on("close", () => { if (streams.delete(id)) toPage(frame(3, id, Buffer.alloc(0))); });
  });
  server.listen(0, "127.0.0.1", () => console.log("listening " + server.address().port));
}

const object = { postMessage: heard, onmessage: null };
tell = event => object.onmessage(event);
process.stdin.on("data", () => {
  tell({ data: '{"t":"close"}' });
  setTimeout(() => process.exit(0), 300);
});

(async () => {
  const answer = await request("GET", "/?bridge=" + bridge, {});
  const page = answer.body.toString();
  const [, once, script] = /<script nonce="([^"]+)">([^]*)<\/script>/.exec(page) || fail("page " + answer.status);
  if (!answer.headers["content-security-policy"].includes(`'nonce-${once}'`)) fail("policy");
  if (/\beval\b|\bimport\b|localStorage|<link|src=/.test(page)) fail("page asks for more");
  const context = {
    location: { hash: "#android=" + nonce, pathname: "/", protocol: "https:", host },
    history: { replaceState: (a, b, path) => { if (path !== "/") fail("path " + path); } },
    TelegramWebProxy: object, WebSocket, setTimeout, console, addEventListener: () => fail("no native object"),
    ArrayBuffer, DataView, Uint8Array,
    fetch: async (path, options) => {
      const got = await request(options.method, path, options.headers, options.body);
      return {
        ok: got.status >= 200 && got.status < 300, status: got.status,
        headers: { get: name => got.headers[name.toLowerCase()] || null },
        arrayBuffer: async () => exact(got.body),
      };
    },
  };
  context.window = context;
  vm.runInNewContext(script, context);
})();
