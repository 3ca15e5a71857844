// Subscribers built on npm `ws`. The job comes as JSON in the first argument: {clients: [{url, topics, compression}],
// token, certificate}. It says {"subscribed": n} when all are; told a number on stdin, it waits for that many messages, asks
// every node whether more was on its way (a ping comes back behind it), and says what each client heard.

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import WebSocket from 'ws';

const job = JSON.parse(process.argv[2]);
const ca = readFileSync(job.certificate);
const say = (told) => process.stdout.write(`${JSON.stringify(told)}\n`);

let heard = 0;
let onHeard = () => {};

class Subscriber {
  constructor({ url, topics, compression = true }) {
    this.report = { messages: {}, others: [], closed: null };
    this.replies = new Map();
    this.socket = new WebSocket(url, ['causeway.v1', `causeway.bearer.${job.token}`], {
      ca,
      // The library compresses nothing below a threshold of its own.
      perMessageDeflate: compression && { threshold: 0 },
    });
    this.socket.on('message', (data) => this.take(JSON.parse(data)));
    this.socket.on('close', (code) => { this.report.closed = code; });
    this.subscribed = new Promise((resolve) => this.socket.on('open', resolve))
      .then(() => this.command({ op: 'subscribe', topics }));
  }

  command(command) {
    const id = this.replies.size + 1;
    return new Promise((resolve) => {
      this.replies.set(id, resolve);
      this.socket.send(JSON.stringify({ id, ...command }));
    });
  }

  take(told) {
    if (told.op === 'message') {
      (this.report.messages[told.topic] ??= []).push(told.data);
      heard += 1;
      onHeard();
    } else if (told.id) {
      this.replies.get(told.id)(told);
    } else if (told.op !== 'welcome') {
      this.report.others.push(told);
    }
  }
}

const subscribers = job.clients.map((client) => new Subscriber(client));
const replies = await Promise.all(subscribers.map((subscriber) => subscriber.subscribed));
say({ subscribed: replies.filter((reply) => reply.op === 'subscribed').length });

for await (const line of createInterface({ input: process.stdin })) {
  await new Promise((resolve) => {
    onHeard = () => heard >= Number(line) && resolve();
    onHeard();
  });
  await Promise.all(subscribers.map((subscriber) => subscriber.command({ op: 'ping' })));
  say(subscribers.map((subscriber) => subscriber.report));
}
for (const { socket } of subscribers) socket.close();
