// node_etcd3.mjs PORT: a session with the Node library `etcd3`; prints what it answers.
import { Etcd3, SortTarget, EtcdLockFailedError } from 'etcd3';

const client = new Etcd3({ hosts: `http://127.0.0.1:${process.argv[2]}` });
const plain = value => JSON.stringify(value, (_, inner) =>
  inner && inner.type === 'Buffer' ? Buffer.from(inner.data).toString() : inner);
const show = (what, value) => console.log(`${what}: ${plain(value)}`);
const attempt = async (what, call) => {
  try { show(what, await call()); } catch (problem) { show(what, [problem.constructor.name, problem.message]); }
};
const header = ({ revision, raft_term }) => [revision, raft_term];

show('put', header((await client.put('a').value('1')).header));
show('get', await client.get('a').string());
show('exec', (await client.get('a').exec()).kvs);
show('missing', await client.get('none').string());
for (let index = 0; index < 5; index++) await client.put(`p/${index}`).value(String(9 - index));
show('prefix', await client.getAll().prefix('p/').strings());
show('keys', await client.getAll().prefix('p/').keys());
show('count', await client.getAll().prefix('p/').count());
show('sorted', await client.getAll().prefix('p/').sort('Value', 'Descend').limit(2).strings());
show('delete', (await client.delete().prefix('p/')).deleted);
show('if', await client.if('a', 'Value', '==', '1').then(client.put('a').value('2')).else(client.get('a')).commit()
  .then(answer => [answer.succeeded, header(answer.header), answer.responses.length]));
show('else', await client.if('a', 'Value', '==', '1').then(client.put('a').value('3')).else(client.get('a')).commit()
  .then(answer => [answer.succeeded, answer.responses[0].response_range.kvs]));

const watcher = await client.watch().prefix('w/').withPreviousKV().create();
const seen = [];
const three = new Promise(resolve => {
  const note = kind => (kv, previous) => {
    seen.push([kind, kv.key.toString(), kv.value.toString(), kv.mod_revision, previous ? previous.value.toString() : null]);
    if (seen.length === 3) resolve();
  };
  watcher.on('put', note('put')).on('delete', note('delete'));
});
await client.put('w/a').value('1');
await client.put('w/a').value('2');
await client.delete().key('w/a');
await three;
show('watched', seen);
await watcher.cancel();

const lease = client.lease(60);
await lease.put('leased').value('1');
show('leased', await client.get('leased').string());
show('kept alive', (await lease.keepaliveOnce()).TTL);
await lease.revoke();
show('after revoke', await client.get('leased').string());

await client.lock('lock').ttl(10).do(async () => {
  await attempt('second lock', () => client.lock('lock').acquire());
});
show('stm', await client.stm().transact(async transaction => {
  const before = await transaction.get('a').string();
  await transaction.put('a').value(before + '!');
  return before;
}));
show('after stm', await client.get('a').string());

const election = client.election('e', 5);
const campaign = election.campaign('me');
await new Promise(resolve => campaign.once('elected', resolve));
show('leader', await election.leader());
await campaign.resign();

await attempt('compact', async () => header((await client.kv.compact({ revision: 5 })).header));
await attempt('compact again', () => client.kv.compact({ revision: 5 }));
await attempt('past', () => client.get('a').revision(2).string());
await attempt('future', () => client.get('a').revision(100000).string());
await attempt('keyless', () => client.kv.range({ key: Buffer.alloc(0) }));
show('members', (await client.cluster.memberList({})).members.map(member => [member.ID, member.name, member.peerURLs]));
show('alarms', (await client.maintenance.alarm({ action: 'Get' })).alarms);
show('status', (await client.maintenance.status()).leader);
client.close();
