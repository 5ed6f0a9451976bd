// The workload of tests.fire.client with PowerSync's own Node SDK: the same commands, the same events, another engine.
// Arguments: the directory of @powersync/node, the file, the life, the backend's URL, the user, the list, the rate.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

for (const level of ['log', 'info', 'warn', 'debug']) console[level] = console.error;
const [sdk, dbFilename, life, url, userId, listId, rate] = process.argv.slice(2);
const entry = createRequire(`${sdk}/package.json`).resolve('@powersync/node');
const { PowerSyncDatabase, Schema, Table, column } = await import(pathToFileURL(entry).href);
const WRITER = 63n;
const KEYS_PER_WRITE = 4;
const READ = `SELECT id, description FROM todos WHERE list_id = '${listId}'`;

const microseconds = () => process.hrtime.bigint() / 1000n;
// A value has more digits than a double: it is kept as text, and told as a number.
const numbers = (state) => `{${Object.entries(state).map(([key, value]) => `"${key}":${value}`).join(',')}}`;
function tell(type, ...details) {
  const parts = [`"t":${microseconds()}`, `"type":"${type}"`, '"process":"sdk"', '"file":"sdk"', `"life":${life}`, ...details];
  process.stdout.write(`{${parts.join(',')}}\n`);
}

const schema = new Schema({
  lists: new Table({ created_at: column.text, name: column.text, owner_id: column.text }),
  todos: new Table({ list_id: column.text, created_at: column.text, description: column.text, completed: column.integer })
});

const connector = {
  token: null,
  async fetchCredentials() {
    const answer = await fetch(`${url}/api/auth/token?user_id=${userId}`, { signal: AbortSignal.timeout(4000) });
    if (!answer.ok) throw new Error(`no token: ${answer.status}`);
    this.token = (await answer.json()).token;
    return { endpoint: url, token: this.token };
  },
  async uploadData(database) {
    const transaction = await database.getNextCrudTransaction();
    if (transaction == null) return;
    const batch = transaction.crud.map((it) => ({ op: it.op, table: it.table, id: it.id, data: it.opData }));
    const send = () => fetch(`${url}/api/data`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${this.token}` },
      body: JSON.stringify({ batch }),
      signal: AbortSignal.timeout(4000)
    });
    if (this.token === null) await this.fetchCredentials();
    let answer = await send();
    if (answer.status === 401) {
      await this.fetchCredentials();
      answer = await send();
    }
    if (!answer.ok) throw new Error(`refused: ${answer.status} ${await answer.text()}`);
    await transaction.complete();
  }
};

const database = new PowerSyncDatabase({ schema, database: { dbFilename, implementation: { type: 'node:sqlite' } } });
await database.init();
const subscription = await database.syncStream('todos', { list: listId }).subscribe();
const options = { retryDelayMs: 500, crudUploadThrottleMs: 10 };
await database.connect(connector, options);
tell('started');

const stateOf = (rows) => Object.fromEntries(rows.map((row) => [row.id, row.description]));
let working = false;
let idle = Promise.resolve();

async function write(keys) {
  let value;
  try {
    await database.writeTransaction(async (transaction) => {
      value = microseconds() * 64n + WRITER;
      const state = stateOf(await transaction.getAll(READ));
      tell('invoke', `"value":${value}`, `"keys":${JSON.stringify(keys)}`, `"state":${numbers(state)}`);
      for (const key of keys) {
        await transaction.execute('UPDATE todos SET description = ? WHERE id = ?', [String(value), key]);
      }
    });
    tell('ok', `"value":${value}`);
  } catch (error) {
    tell('fail', `"value":${value ?? 0}`, `"error":${JSON.stringify(String(error))}`);
  }
}

async function work() {
  await subscription.waitForFirstSync();
  while (working) {
    await new Promise((resolve) => setTimeout(resolve, (-Math.log(1 - Math.random()) / rate) * 1000));
    if (!working) break;
    const state = stateOf(await database.getAll(READ));
    if (Math.random() < 0.4) tell('read', `"state":${numbers(state)}`);
    else await write(Object.keys(state).sort(() => Math.random() - 0.5).slice(0, KEYS_PER_WRITE));
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command === 'begin') {
    working = true;
    idle = work();
  } else if (command === 'quiesce') {
    working = false;
    await Promise.race([idle, new Promise((resolve) => setTimeout(resolve, 5000))]);
  } else if (command === 'disconnect') {
    await database.disconnect();
  } else if (command === 'connect') {
    if (!database.currentStatus.connected) await database.connect(connector, options);
  } else if (command === 'final') {
    const state = stateOf(await database.getAll(READ));
    const waiting = (await database.getUploadQueueStats()).count;
    const flow = database.currentStatus.dataFlowStatus;
    const busy = !database.currentStatus.connected || flow.downloading || flow.uploading;
    tell('final', `"state":${numbers(state)}`, `"waiting":${waiting}`, '"rejected":0', `"busy":${Boolean(busy)}`, '"errors":[]');
  } else if (command === 'close') {
    await database.close();
    break;
  }
}
process.exit(0);
