/** The branches of the conversation as a tree: who came from whom, where they part, what they are called. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;

  const MOMENT_MS = 6000; // how long a deletion can be taken back
  const EXCERPT = 16; // tokens that stand for a branch

  /** Branches that are about to be deleted: id -> timer. */
  const leaving = new Map();

  const byId = (id) => store.branches.find((branch) => branch.id === id);

  /** What is told of the branch that is shown comes from its tokens: it grows while it streams. */
  function fresh(branch) {
    if (branch.id !== store.branch) return branch;
    const { tokens } = store;
    let end = tokens.length;
    while (end > 0 && !glassbox.sampled(tokens[end - 1])) end--;
    let start = end;
    while (start > 0 && glassbox.sampled(tokens[start - 1])) start--;
    const reply = tokens.slice(start, end);
    const lp = reply.length ? reply.reduce((sum, token) => sum + token.lp, 0) / reply.length : null;
    const own = tokens.slice(branch.fork, branch.fork + EXCERPT).filter((token) => !token.sp);
    const text = branch.parent == null ? branch.text : own.map(({ s }) => s).join('');
    return { ...branch, text, n: tokens.length, reply: [start, end], lp };
  }

  /** Branches that are there, without those about to go. */
  const kept = () => store.branches.filter(({ id }) => !leaving.has(id));

  /** A branch and those it came from, up to the first. */
  function line(branch) {
    const found = [];
    for (let at = branch; at && !found.includes(at); at = byId(at.parent)) found.push(at);
    return found;
  }

  /**
   * Where the tokens of a branch begin to differ from another one's: the earliest fork on the way between them.
   */
  function parting(branch, other = byId(store.branch)) {
    const trunk = line(other);
    const path = line(branch);
    const common = path.find((at) => trunk.includes(at));
    const between = [...path.slice(0, path.indexOf(common)), ...trunk.slice(0, trunk.indexOf(common))];
    return Math.min(...between.map((at) => at.fork || 0));
  }

  /** The name a person gave it, else its number. */
  const nameOf = (branch) => branch.name || glassbox.t('branch_name', branch.id + 1);

  /** Every branch with its depth, children under their parent in the order in which they leave it. */
  function walk(parent = null, depth = 0) {
    const children = store.branches
      .filter((branch) => (byId(branch.parent) ? branch.parent : null) === parent)
      .sort((a, b) => a.fork - b.fork || a.id - b.id);
    return children.flatMap((branch) => [{ branch, depth }, ...walk(branch.id, depth + 1)]);
  }

  // ---- deleting, with a moment to take it back ----

  function remove(id) {
    clearTimeout(leaving.get(id));
    leaving.delete(id);
    return byId(id) ? glassbox.actions.deleteBranch(id) : Promise.resolve(false);
  }

  /** Takes a branch out of sight and deletes it a moment later; the conversation moves to another one first. */
  async function deleteSoon(id) {
    if (kept().length < 2 || leaving.has(id)) return false;
    const next =
      kept().find((branch) => branch.id === byId(id).parent) || kept().find((one) => one.id !== id);
    if (id === store.branch && !(await glassbox.actions.switchBranch(next.id))) return false;
    leaving.set(
      id,
      setTimeout(() => remove(id), MOMENT_MS),
    );
    glassbox.emit('branches');
    return true;
  }

  function restore(id) {
    clearTimeout(leaving.get(id));
    leaving.delete(id);
    glassbox.emit('branches');
  }

  /** The numbers of the branches mean others in another conversation. */
  function forget() {
    for (const timer of leaving.values()) clearTimeout(timer);
    leaving.clear();
  }

  glassbox.on('hello', forget);
  glassbox.on('renew', forget);

  glassbox.tree = {
    byId,
    fresh,
    kept,
    parting,
    nameOf,
    walk,
    deleteSoon,
    restore,
    isLeaving: (id) => leaving.has(id),
  };
})();
