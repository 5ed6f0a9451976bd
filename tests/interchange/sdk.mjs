// Opens a file with the official Node SDK, tells what stands in it, makes an edit, and closes it.
// Arguments: the directory of the npm package @powersync/node, the file.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [sdk, dbFilename] = process.argv.slice(2);
const entry = createRequire(`${sdk}/package.json`).resolve('@powersync/node');
const { PowerSyncDatabase, Schema, Table, column } = await import(pathToFileURL(entry).href);

const schema = new Schema({
  lists: new Table({ created_at: column.text, name: column.text, owner_id: column.text }),
  todos: new Table(
    {
      list_id: column.text,
      created_at: column.text,
      completed_at: column.text,
      description: column.text,
      completed: column.integer,
      created_by: column.text,
      completed_by: column.text
    },
    { indexes: { list: ['list_id'] } }
  )
});

const database = new PowerSyncDatabase({
  schema,
  database: { dbFilename, implementation: { type: 'node:sqlite' } }
});
await database.init();
const queue = [];
for await (const transaction of database.getCrudTransactions()) {
  const entries = transaction.crud.map((entry) => [entry.clientId, entry.op, entry.table, entry.id, entry.opData ?? null]);
  queue.push([transaction.transactionId, entries]);
}
await database.execute("UPDATE lists SET name = 'Edited by the SDK' WHERE id = 'l'");
const lists = await database.getAll('SELECT id, name FROM lists ORDER BY id');
console.log(JSON.stringify({ queue, lists }));
await database.close();
