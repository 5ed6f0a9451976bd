// PowerSync's own Node SDK as a client of the backend, driven line by line: a command as JSON comes in, its answer goes out.
// Arguments: the directory of the npm package @powersync/node, the database file, the backend's URL, the user, and as JSON
// the options of connect(), with `format`, which says what Accept asks for ("bson" as the SDK itself does, or "ndjson"),
// and `streams`, the arguments of `subscribe` for what is subscribed from the start.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

// What the SDK tells on the console must not stand between the answers.
for (const level of ['log', 'info', 'warn', 'debug']) console[level] = console.error;
const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

const [sdk, dbFilename, url, userId, settings] = process.argv.slice(2);
const entry = createRequire(`${sdk}/package.json`).resolve('@powersync/node');
const { PowerSyncDatabase, Schema, Table, column } = await import(pathToFileURL(entry).href);
const { format, streams = [], ...options } = JSON.parse(settings);

const schema = new Schema({
  lists: new Table({ created_at: column.text, name: column.text, owner_id: column.text }),
  todos: new Table({ list_id: column.text, created_at: column.text, description: column.text, completed: column.integer })
});

const seen = { formats: [], requests: [], tokens: 0 };

async function request(resource, init) {
  const path = new URL(resource).pathname;
  if (path === '/sync/stream' && format === 'ndjson') init.headers.accept = 'application/x-ndjson';
  const response = await fetch(resource, init);
  seen.requests.push(path);
  if (path === '/sync/stream' && response.ok) seen.formats.push(response.headers.get('content-type'));
  return response;
}

const connector = {
  token: null,
  async fetchCredentials() {
    const answer = await fetch(`${url}/api/auth/token?user_id=${encodeURIComponent(userId)}`);
    if (!answer.ok) throw new Error(`no token: ${answer.status}`);
    seen.tokens += 1;
    this.token = (await answer.json()).token;
    return { endpoint: url, token: this.token };
  },
  async uploadData(database) {
    const transaction = await database.getNextCrudTransaction();
    if (transaction == null) return;
    const batch = transaction.crud.map((it) => ({ op: it.op, table: it.table, id: it.id, data: it.opData }));
    const answer = await fetch(`${url}/api/data`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${this.token}` },
      body: JSON.stringify({ batch })
    });
    if (!answer.ok) throw new Error(`refused: ${answer.status} ${await answer.text()}`);
    await transaction.complete();
  }
};

const database = new PowerSyncDatabase({
  schema,
  database: { dbFilename, implementation: { type: 'node:sqlite' } },
  remoteOptions: { customFetch: request }
});
await database.init();
const subscriptions = new Map();
const commands = {
  query: ({ sql }) => database.getAll(sql),
  execute: async ({ sql }) => { await database.execute(sql); },
  subscribe: async ({ stream, parameters, ...how }) => {
    subscriptions.set(stream, await database.syncStream(stream, parameters).subscribe(how));
  },
  unsubscribe: async ({ stream, parameters }) => {
    subscriptions.get(stream).unsubscribe();
    await database.syncStream(stream, parameters).unsubscribeAll();
  },
  synced: async ({ stream }) => { await subscriptions.get(stream).waitForFirstSync(); },
  first: async ({ priority }) => { await database.waitForFirstSync({ priority }); },
  checkpoint: async () => { await (await database.requestCheckpoint()).waitForSync(); },
  status: async () => ({
    connected: database.currentStatus.connected,
    waiting: (await database.getUploadQueueStats()).count,
    ...seen
  }),
  close: async () => { await database.close(); }
};

for (const each of streams) await commands.subscribe(each);
await database.connect(connector, { retryDelayMs: 100, crudUploadThrottleMs: 10, ...options });

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    answer({ result: (await commands[command.do](command)) ?? null });
  } catch (error) {
    answer({ error: String(error) });
  }
  if (command.do === 'close') break;
}
process.exit(0);
