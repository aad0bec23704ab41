/**
 * The branches of the conversation as a small tree: the current one is the trunk, each other one leaves it
 * where its tokens begin to differ. Every end is a button that goes there.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;
  const { el, svg } = glassbox.dom;

  const WIDTH = 120;
  const PAD = 6;
  const TRUNK = 7; // height of the trunk
  const ROW = 11;
  const ROWS = 2; // rows under the trunk; more forks share them
  const LIMB = 18; // from a fork to its first end
  const GAP = 11; // between ends that leave at one fork

  const byId = (id) => store.branches.find((branch) => branch.id === id);

  /** A branch and those it came from, up to the first. */
  function line(branch) {
    const found = [];
    for (let at = branch; at && !found.includes(at); at = byId(at.parent)) found.push(at);
    return found;
  }

  /**
   * Where the tokens of a branch begin to differ from the current one: the earliest fork on the way between
   * them.
   */
  function parting(branch) {
    const trunk = line(byId(store.branch));
    const path = line(branch);
    const common = path.find((at) => trunk.includes(at));
    const between = [...path.slice(0, path.indexOf(common)), ...trunk.slice(0, trunk.indexOf(common))];
    return Math.min(...between.map((at) => at.fork || 0));
  }

  function labelOf(branch) {
    const { branches } = store;
    return glassbox.t(
      'branch_tip',
      branches.indexOf(branch) + 1,
      branches.length,
      branch.n,
      branch.text || '',
    );
  }

  /** The end of a branch, a button that goes there. */
  function endNode(branch, x, y) {
    const current = branch.id === store.branch;
    const label = labelOf(branch);
    const node = svg('g', {
      class: current ? 'end now' : 'end',
      role: 'button',
      tabindex: '0',
      'aria-label': label,
    });
    if (current) node.setAttribute('aria-current', 'true');
    node.dataset.branch = branch.id;
    const title = svg('title');
    title.textContent = label;
    node.append(
      title,
      svg('circle', { cx: x, cy: y, r: 8, class: 'hit' }),
      svg('circle', { cx: x, cy: y, r: 3.5 }),
    );
    const go = () => !current && glassbox.actions.switchBranch(branch.id);
    node.addEventListener('click', go);
    node.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault();
      go();
    });
    return node;
  }

  /** One fork: the curve down to row `y`, and the ends of the branches that leave there, side by side. */
  function limb(branches, x, y) {
    const gap = Math.min(GAP, (WIDTH - PAD - x - LIMB) / Math.max(1, branches.length - 1));
    const last = x + LIMB + (branches.length - 1) * gap;
    const path = `M${x} ${TRUNK}C${x + 7} ${TRUNK} ${x + 3} ${y} ${x + 10} ${y}H${last}`;
    const ends = branches.map((branch, at) => endNode(branch, x + LIMB + at * gap, y));
    return [
      svg('path', { class: 'limb', d: path }),
      svg('circle', { class: 'fork', cx: x, cy: TRUNK, r: 2.5 }),
      ...ends,
    ];
  }

  /**
   * Forks in the order in which they come, evenly spaced: what matters is which comes first, not by how much.
   */
  function drawTree() {
    const others = store.branches.filter(({ id }) => id !== store.branch);
    const forks = [...new Set(others.map(parting))].sort((a, b) => a - b);
    const step = (WIDTH - 2 * PAD) / (forks.length + 1);
    const rows = Math.min(ROWS, forks.length);
    const height = 2 * TRUNK + rows * ROW;
    const tree = svg('svg', { class: 'tree', viewBox: `0 0 ${WIDTH} ${height}` });
    tree.style.height = `${height}px`;
    tree.append(svg('path', { class: 'trunk', d: `M${PAD} ${TRUNK}H${WIDTH - PAD}` }));
    forks.forEach((fork, at) => {
      const leaving = others.filter((branch) => parting(branch) === fork);
      tree.append(
        ...limb(leaving, PAD + step * (at + (fork > 0 ? 1 : 0.5)), TRUNK + ROW * (1 + (at % ROWS))),
      );
    });
    tree.append(endNode(byId(store.branch), WIDTH - PAD, TRUNK));
    return tree;
  }

  /** Draws the strip; nothing while there is one branch only. */
  function drawBranches(node) {
    node.replaceChildren();
    if (store.branches.length < 2 || !byId(store.branch)) return;
    node.append(drawTree(), el('span', '', glassbox.t('branches_count', store.branches.length)));
  }

  glassbox.drawBranches = drawBranches;
})();
