/**
 * The branches of the conversation as a small strip: the current one is the trunk, each other one leaves it
 * where its tokens begin to differ. Every end is a button that goes there; the count opens the whole tree.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, tree } = glassbox;
  const { el, svg } = glassbox.dom;

  const WIDTH = 120;
  const PAD = 6;
  const TRUNK = 7; // height of the trunk
  const ROW = 11;
  const ROWS = 2; // rows under the trunk; more forks share them
  const LIMB = 18; // from a fork to its first end
  const GAP = 11; // between ends that leave at one fork

  const labelOf = (branch) =>
    glassbox.t('branch_tip', tree.nameOf(branch), tree.fresh(branch).n, branch.text || '');

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
    const others = tree.kept().filter(({ id }) => id !== store.branch);
    const forks = [...new Set(others.map((branch) => tree.parting(branch)))].sort((a, b) => a - b);
    const step = (WIDTH - 2 * PAD) / (forks.length + 1);
    const rows = Math.min(ROWS, forks.length);
    const height = 2 * TRUNK + rows * ROW;
    const strip = svg('svg', { class: 'tree', viewBox: `0 0 ${WIDTH} ${height}` });
    strip.style.height = `${height}px`;
    strip.append(svg('path', { class: 'trunk', d: `M${PAD} ${TRUNK}H${WIDTH - PAD}` }));
    forks.forEach((fork, at) => {
      const leaving = others.filter((branch) => tree.parting(branch) === fork);
      strip.append(
        ...limb(leaving, PAD + step * (at + (fork > 0 ? 1 : 0.5)), TRUNK + ROW * (1 + (at % ROWS))),
      );
    });
    strip.append(endNode(tree.byId(store.branch), WIDTH - PAD, TRUNK));
    return strip;
  }

  /** The number of branches, a button that opens them all. */
  function countButton(n) {
    const key = glassbox.isPhone() ? 'branches_short' : 'branches_count';
    const button = el('button', 'link quiet', glassbox.t(key, n));
    button.type = 'button';
    button.id = 'branches-open';
    button.title = glassbox.t('branches_open');
    button.setAttribute('aria-haspopup', 'dialog');
    button.addEventListener('click', () => glassbox.showBranches());
    return button;
  }

  /** Draws the strip; nothing while there is one branch only. */
  function drawBranches(node) {
    const focused = node.contains(document.activeElement) && document.activeElement.id;
    const n = tree.kept().length;
    node.replaceChildren();
    if (n < 2 || !tree.byId(store.branch)) return;
    node.append(drawTree(), countButton(n));
    if (focused) document.getElementById(focused).focus();
  }

  glassbox.drawBranches = drawBranches;
})();
