/**
 * Every branch on one card: where it left its parent, how long and how surprising its reply is, its seed. Go there,
 * rename it, compare it, delete it with a moment to take that back.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, tree } = glassbox;
  const { el, svg, iconButton, translate, bits } = glassbox.dom;

  const ROW = 52; // height of a row, as in branches.css
  const LANE = 14; // width of one level of the tree
  const LANES = 6; // deeper levels share the last lane
  const BEFORE = 28; // characters of context before a fork

  let layer = null;
  /** The branch whose name is being written. */ let renaming = null;

  // ---- the lines of the tree ----

  const laneX = (depth) => 12 + LANE * Math.min(depth, LANES);
  const rowY = (at) => ROW * at + 16;

  /** From a parent's ring down to its child's, round the corner. */
  function limbPath(from, to) {
    const bend = Math.min(8, to.x - from.x);
    return `M${from.x} ${from.y + 4.5}V${to.y - bend}Q${from.x} ${to.y} ${from.x + bend} ${to.y}H${to.x - 4.5}`;
  }

  function drawLines(rows) {
    const width = laneX(Math.min(LANES, Math.max(...rows.map(({ depth }) => depth)))) + 10;
    const lines = svg('svg', { class: 'limbs', 'aria-hidden': 'true' });
    Object.assign(lines.style, { width: `${width}px`, height: `${ROW * rows.length}px` });
    const points = new Map(
      rows.map(({ branch, depth }, at) => [branch.id, { x: laneX(depth), y: rowY(at) }]),
    );
    for (const { branch } of rows) {
      const from = points.get(branch.parent);
      const to = points.get(branch.id);
      if (from) lines.append(svg('path', { d: limbPath(from, to) }));
    }
    for (const [id, { x, y }] of points) {
      lines.append(svg('circle', { cx: x, cy: y, r: 4, class: id === store.branch ? 'now' : '' }));
    }
    return { lines, width };
  }

  // ---- one row ----

  /** The text before a fork; known while the branch shares it with the one that is shown. */
  function contextOf(branch) {
    if (branch.id !== store.branch && tree.parting(branch) < branch.fork) return '';
    const text = store.tokens
      .slice(Math.max(0, branch.fork - 12), branch.fork)
      .filter((token) => token.role !== 'template' && !token.sp)
      .map((token) => token.s)
      .join('');
    return text.length > BEFORE ? `…${text.slice(-BEFORE).replace(/^\S*\s/, '')}` : text;
  }

  const oneLine = (text) => String(text).replace(/\s+/g, ' ');

  /** Where a branch begins: the text that it shares, then its own. */
  function placeOf(branch) {
    const node = el('span', 'where');
    const own = oneLine(branch.text || '');
    if (branch.parent != null) node.append(el('span', 'num', glassbox.t('branch_at', branch.fork)), ' ');
    node.append(el('span', 'before', oneLine(contextOf(branch))), el('b', '', own));
    return node;
  }

  function figuresOf({ reply, n, lp, seed }) {
    const { t } = glassbox;
    const length = reply ? reply[1] - reply[0] : n;
    const facts = [length === 1 ? t('meta_token') : t('meta_tokens', length)];
    if (lp != null) facts.push(t('bits', bits(-lp).toFixed(2)));
    facts.push(t('seed_is', seed));
    return el('span', 'facts num', facts.join(t('comma')));
  }

  function nameBox(branch) {
    const box = el('input', 'name');
    box.value = branch.name || '';
    box.placeholder = glassbox.t('branch_name', branch.id + 1);
    box.maxLength = 60;
    box.setAttribute('aria-label', glassbox.t('branch_rename'));
    const end = (keep) => {
      if (renaming !== branch.id) return;
      renaming = null;
      if (keep && box.value.trim() !== (branch.name || '')) {
        branch.name = box.value.trim();
        glassbox.actions.renameBranch(branch.id, branch.name);
      }
      draw(branch.id);
    };
    box.addEventListener('blur', () => end(true));
    box.addEventListener('keydown', (event) => {
      event.stopPropagation();
      if (event.isComposing || !['Enter', 'Escape'].includes(event.key)) return;
      event.preventDefault();
      end(event.key === 'Enter');
    });
    return box;
  }

  function goButton(branch) {
    const current = branch.id === store.branch;
    const button = el('button', 'go');
    button.type = 'button';
    button.dataset.go = branch.id;
    if (current) {
      button.setAttribute('aria-current', 'true');
      button.dataset.first = '';
    }
    const told = tree.fresh(branch);
    button.append(el('b', 'name', tree.nameOf(branch)), figuresOf(told), placeOf(told));
    button.addEventListener('click', () => !current && glassbox.actions.switchBranch(branch.id));
    return button;
  }

  const startRenaming = (id) => {
    renaming = id;
    draw(id);
  };

  function tools(branch) {
    const box = el('span', 'tools');
    if (branch.id !== store.branch) {
      box.append(iconButton('compare', 'branch_compare', () => compareWith(branch.id)));
    }
    box.append(iconButton('edit', 'branch_rename', () => startRenaming(branch.id)));
    if (tree.kept().length > 1) {
      box.append(iconButton('bin', 'branch_delete', () => tree.deleteSoon(branch.id)));
    }
    return box;
  }

  function leavingRow(branch) {
    const row = el('div', 'branch leaving');
    const undo = el('button', 'link', glassbox.t('undo'));
    undo.type = 'button';
    undo.dataset.go = branch.id;
    undo.addEventListener('click', () => tree.restore(branch.id));
    row.append(el('span', '', glassbox.t('branch_deleted', tree.nameOf(branch))), undo);
    return row;
  }

  function rowOf(branch) {
    if (tree.isLeaving(branch.id)) return leavingRow(branch);
    const row = el('div', `branch${branch.id === store.branch ? ' now' : ''}`);
    row.dataset.branch = branch.id;
    row.append(goButton(branch), tools(branch));
    if (renaming === branch.id) row.append(nameBox(branch));
    return row;
  }

  // ---- the card ----

  function compareWith(id) {
    layer.close();
    glassbox.compare(store.branch, id);
  }

  function draw(focus) {
    if (!layer) return;
    const { node } = layer;
    const at = document.activeElement.closest && document.activeElement.closest('#branch-panel [data-go]');
    const keep = focus ?? (at && Number(at.dataset.go));
    const rows = tree.walk();
    const { lines, width } = drawLines(rows);
    const list = el('div', 'rows');
    list.style.paddingLeft = `${width}px`;
    list.append(lines, ...rows.map(({ branch }) => rowOf(branch)));
    node.querySelector('.rows').replaceWith(list);
    node.querySelector('.count').textContent = glassbox.t('branches_count', tree.kept().length);
    translate(list);
    const box = list.querySelector('input.name');
    const next = box || (keep != null && list.querySelector(`[data-go="${keep}"]`));
    if (next) next.focus();
    if (box) box.select();
    glassbox.layers.place(layer);
  }

  function step(by) {
    const stops = [...layer.node.querySelectorAll('[data-go]')];
    const at = stops.indexOf(document.activeElement);
    (stops[at + by] || stops[at] || stops[0]).focus();
  }

  /** Arrows move, F2 renames, Delete deletes, c compares. */
  function onKey(event) {
    if (!layer) return; // it was Escape
    const { activeElement: at } = document;
    const id = at && at.dataset.go != null ? Number(at.dataset.go) : null;
    const act = {
      ArrowUp: () => step(-1),
      ArrowDown: () => step(1),
      F2: () => id !== null && startRenaming(id),
      Delete: () => id !== null && tree.deleteSoon(id),
      c: () => id !== null && id !== store.branch && compareWith(id),
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  function fill(node, close) {
    const head = el('header');
    head.append(
      el('h2', '', glassbox.t('branches')),
      el('span', 'count num'),
      el('span', 'grow'),
      iconButton('close', 'close', close),
    );
    const hint = store.branches.length > 1 ? 'branches_hint' : 'branches_none';
    node.append(head, el('div', 'rows'), el('p', 'hint', glassbox.t(hint)));
    node.addEventListener('keydown', onKey);
  }

  /** Opens the tree of branches over the composer, or closes it. */
  function showBranches() {
    const anchor = document.querySelector('.composer .crow');
    layer = glassbox.layers.openCard({
      id: 'branch-panel',
      label: glassbox.t('branches'),
      anchor,
      fill,
      onClose: () => {
        layer = renaming = null;
      },
    });
    draw(store.branch);
  }

  glassbox.on('branches', () => draw());
  glassbox.on('lang', () => layer && layer.close());
  glassbox.showBranches = showBranches;
})();
