// The official Node SDK's part of each measurement; `tests/benchmarks/engine.py` is ours. Prints one JSON line.
// Arguments: the directory of the npm package @powersync/node, and the measurement as JSON.
import { statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [sdk, given] = process.argv.slice(2);
const { kind, path, port, tables, rows } = JSON.parse(given);
const entry = createRequire(`${sdk}/package.json`).resolve('@powersync/node');
const { PowerSyncDatabase, Schema, Table, column } = await import(pathToFileURL(entry).href);

const columns = {
  list_id: column.text,
  created_at: column.text,
  description: column.text,
  position: column.integer,
  completed: column.integer
};
const indexes = kind === 'first_sync' ? {} : { list: ['list_id'] };
const schema = new Schema(Object.fromEntries(tables.map((name) => [name, new Table(columns, { indexes })])));
const table = tables[0];
const INSERT = `INSERT INTO ${table}(id, list_id, description, created_at, completed, position) VALUES (?, ?, ?, ?, ?, ?)`;
const OF_LIST = `SELECT id, description, position FROM ${table} WHERE list_id = ? ORDER BY position`;

const now = () => Number(process.hrtime.bigint()); // the clock that Python calls monotonic
const milliseconds = (since) => (now() - since) / 1e6;
const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const open = () => new PowerSyncDatabase({ schema, database: { dbFilename: path, implementation: { type: 'node:sqlite' } } });
const connector = {
  askedAt: 0, // right before the stream is opened
  fetchCredentials: async () => {
    connector.askedAt ||= now();
    return { endpoint: `http://127.0.0.1:${port}`, token: 'token' };
  },
  uploadData: async () => {}
};

async function firstSync(database) {
  database.connect(connector);
  await database.waitForFirstSync();
  const seconds = milliseconds(connector.askedAt) / 1000;
  let counted = 0;
  for (const name of tables) counted += (await database.get(`SELECT count(*) AS count FROM ${name}`)).count;
  return { seconds, rows: counted, memory_mb: process.resourceUsage().maxRSS / 1024 };
}

// Tells the highest position of the live list with the moment at which the watched query gave it.
async function live(database) {
  database.connect(connector);
  await database.waitForFirstSync();
  for await (const result of database.watch(OF_LIST, ['live'], { throttleMs: 0 })) {
    const there = result.rows?._array ?? result.array ?? [];
    print({ seen: there.length ? there.at(-1).position : -1, at: now() });
  }
}

const row = (list, place) => [crypto.randomUUID(), list, 'buy milk '.repeat(4), '2026-01-01T00:00:00Z', 0, place];
const filling = () => Array.from({ length: rows.table }, (_, place) => row(`list ${place % 1000}`, place));

async function writes(database) {
  const inserts = [];
  for (let place = 0; place < rows.single; place++) {
    const values = row(`list ${place % 1000}`, place);
    const began = now();
    await database.execute(INSERT, values);
    inserts.push(milliseconds(began));
  }
  const many = Array.from({ length: rows.many }, (_, place) => row(`list ${place % 1000}`, place));
  const began = now();
  await database.executeBatch(INSERT, many);
  const batch = milliseconds(began);
  await database.executeBatch(INSERT, filling());
  return { inserts, batch, watched: await watching(database, 1) };
}

async function watchers(database) {
  await database.executeBatch(INSERT, filling());
  return { watched: await watching(database, rows.watchers) };
}

async function watching(database, count) {
  const watches = Array.from({ length: count }, () =>
    database.watch(OF_LIST, ['list 7'], { throttleMs: 0 })[Symbol.asyncIterator]()
  );
  for (const watch of watches) await watch.next();
  const watched = [];
  for (let place = 0; place < rows.watched; place++) {
    const values = row('list 7', place);
    const began = now();
    const next = watches.map((watch) => watch.next());
    await database.execute(INSERT, values);
    for (const step of await Promise.all(next)) if (step.done) throw new Error('a watch ended');
    watched.push(milliseconds(began));
  }
  return watched;
}

async function drain(database) {
  const began = now();
  let count = 0;
  for await (const transaction of database.getCrudTransactions()) {
    await transaction.complete();
    count++;
  }
  return { seconds: milliseconds(began) / 1000, transactions: count };
}

const began = now();
const database = open();
await database.init();
switch (kind) {
  case 'first_sync':
    print({ ...(await firstSync(database)), file_mb: statSync(path).size / 2 ** 20 });
    break;
  case 'live':
    await live(database);
    break;
  case 'writes':
    print(await writes(database));
    break;
  case 'watchers':
    print(await watchers(database));
    break;
  case 'drain':
    print(await drain(database));
    break;
  case 'open':
    await database.get(`SELECT description FROM ${table} WHERE id = ?`, [rows.id]);
    print({ ms: milliseconds(began) });
    break;
}
await database.close();
process.exit(0);
