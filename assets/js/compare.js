/**
 * Two branches side by side: what they share dimmed and folded, the first token that differs marked in both, every
 * token tinted by surprise. Nothing is switched by looking.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, sampled, tree } = glassbox;
  const { el, icon, translate } = glassbox.dom;

  const SHOWN = 4; // shared tokens that stay in sight before the first difference
  const MANY = 3; // settings on the way of which only the first and the last are named
  const SIDES = ['a', 'b'];

  let layer = null;
  /** @type {{a: object, b: object, split: number, folded: boolean}|null} */ let pair = null;

  // ---- what is compared ----

  /** Index of the first token that differs; the shorter length when one goes on where the other ends. */
  function firstDifference(a, b) {
    const n = Math.min(a.length, b.length);
    let at = 0;
    while (at < n && a[at].id === b[at].id) at++;
    return at;
  }

  async function load(id) {
    const { toks, settings } = await glassbox.rpc('branch_tokens', { branch: id });
    glassbox.markParts(toks, 0);
    return { id, toks, settings };
  }

  const replyOf = ({ toks }) => {
    let end = toks.length;
    while (end > 0 && !sampled(toks[end - 1])) end--;
    let start = end;
    while (start > 0 && sampled(toks[start - 1])) start--;
    return toks.slice(start, end);
  };

  // ---- the head of a column ----

  function chooser(side) {
    const select = el('select');
    select.setAttribute('aria-label', glassbox.t(`compare_${side}`));
    for (const branch of tree.kept()) {
      const here =
        branch.id === store.branch ? glassbox.t('compare_shown', tree.nameOf(branch)) : tree.nameOf(branch);
      const option = el('option', '', here);
      option.value = branch.id;
      select.append(option);
    }
    select.value = pair[side].id;
    select.addEventListener('change', () => change(side, Number(select.value)));
    return select;
  }

  function goOnButton(id) {
    const button = el('button', 'btn', glassbox.t('go_on_with'));
    button.type = 'button';
    button.dataset.pick = id;
    button.addEventListener('click', async () => {
      if (id === store.branch || (await glassbox.actions.switchBranch(id))) layer.close();
    });
    return button;
  }

  /** Seed and settings that made the reply; more than one when they changed on the way. */
  function settingsOf(data) {
    const branch = tree.byId(data.id);
    const used = [...new Set(replyOf(data).map((token) => token.par))].filter((par) => par != null);
    const labels = used.map((par) => glassbox.settingsLabel(data.settings[par])).filter(Boolean);
    const distinct = [...new Set(labels)];
    const shown = distinct.length > MANY ? [distinct[0], '…', distinct.at(-1)] : distinct;
    return [glassbox.t('seed_is', branch ? branch.seed : ''), shown.join(' → ')];
  }

  function headOf(side) {
    const head = el('div', 'ch');
    const row = el('div', 'row');
    row.append(chooser(side), el('span', 'grow'), goOnButton(pair[side].id));
    const figs = el('div', 'figs num');
    glassbox.drawFigures(figs, glassbox.figures(new glassbox.Stats(replyOf(pair[side]))));
    head.append(
      row,
      el('div', 'set num', settingsOf(pair[side]).filter(Boolean).join(glassbox.t('comma'))),
      figs,
    );
    return head;
  }

  // ---- the text ----

  const isShown = (token) => token.role !== 'template' || sampled(token);

  function fold(count) {
    const button = el('button', 'fold num');
    button.type = 'button';
    button.setAttribute('aria-expanded', String(!pair.folded));
    button.append(icon(pair.folded ? 'right' : 'down'), el('span', '', glassbox.t('compare_same', count)));
    button.addEventListener('click', () => {
      const { side } = button.closest('.col').dataset;
      pair.folded = !pair.folded;
      drawTexts();
      layer.node.querySelector(`.col[data-side=${side}] .fold`).focus();
    });
    return button;
  }

  /** A message of the conversation: who speaks, then its tokens. */
  function speech(token) {
    const block = el('div', `speech ${token.role === 'template' ? 'assistant' : token.role}`);
    block.dataset.m = token.m;
    if (token.role !== 'template') block.append(el('b', 'who', glassbox.t(`role_${token.role}`)));
    return block;
  }

  function addToken(text, token) {
    let block = text.lastElementChild;
    const fits = block && block.classList.contains('speech');
    const goesOn = token.role === 'template' || Number(block && block.dataset.m) === token.m;
    if (!fits || !goesOn) text.append((block = speech(token)));
    const span = glassbox.tintedSpan(token);
    span.dataset.at = token.i;
    if (token.i < pair.split) span.classList.add('same');
    if (token.i === pair.split) span.classList.add('first');
    block.append(span);
  }

  function textOf(side) {
    const { toks } = pair[side];
    const text = el('div', 'txt');
    const from = pair.folded ? Math.max(0, pair.split - SHOWN) : 0;
    if (pair.split > SHOWN) text.append(fold(pair.split));
    for (const token of toks.slice(from)) if (isShown(token)) addToken(text, token);
    if (toks.length <= pair.split) text.append(el('span', 'ended', glassbox.t('compare_ends')));
    return text;
  }

  // ---- a token's numbers, in a fixed place ----

  const column = (side) => layer.node.querySelector(`.col[data-side=${side}]`);

  function tell(side, at) {
    if (!layer) return; // the pointer leaves what has just been closed
    const token = pair[side].toks[at];
    column(side).querySelector('.read').textContent = token ? glassbox.tokenFacts(token) : '';
  }

  /** One token of a column can be reached with Tab, arrows go on from there. */
  function moveStop(side, span) {
    const before = column(side).querySelector('.t[tabindex]');
    if (before) before.removeAttribute('tabindex');
    if (span) span.tabIndex = 0;
  }

  function onKey(event, side) {
    const span = event.target.closest('.t');
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!span || !by) return;
    event.preventDefault();
    event.stopPropagation();
    const spans = [...column(side).querySelectorAll('.t')];
    const next = spans[spans.indexOf(span) + by];
    if (!next) return;
    moveStop(side, next);
    next.focus();
  }

  function columnOf(side) {
    const col = el('section', 'col');
    col.dataset.side = side;
    col.setAttribute('aria-label', glassbox.t(`compare_${side}`));
    const body = el('div', 'scroll body');
    const show = (event) => {
      const span = event.target.closest('.t');
      if (span) tell(side, Number(span.dataset.at));
    };
    body.addEventListener('pointerover', show);
    body.addEventListener('focusin', show);
    body.addEventListener('pointerleave', () => tell(side, pair.split));
    body.addEventListener('keydown', (event) => onKey(event, side));
    col.append(el('div', 'ch'), body, el('div', 'read num'));
    return col;
  }

  // ---- drawing ----

  function drawTexts() {
    for (const side of SIDES) {
      const col = column(side);
      col.querySelector('.body').replaceChildren(textOf(side));
      const first = col.querySelector('.t.first');
      moveStop(side, first);
      tell(side, pair.split);
      const target = first || col.querySelector('.ended');
      if (target) target.scrollIntoView({ block: 'center' });
    }
  }

  function drawAll() {
    for (const side of SIDES) column(side).querySelector('.ch').replaceWith(headOf(side));
    drawTexts();
    translate(layer.node);
  }

  const pairOf = (a, b) => ({ a, b, split: firstDifference(a.toks, b.toks), folded: true });

  async function change(side, id) {
    try {
      const data = await load(id);
      if (!layer) return;
      pair = side === 'a' ? pairOf(data, pair.b) : pairOf(pair.a, data);
      drawAll();
      column(side).querySelector('select').focus();
    } catch (error) {
      glassbox.emit('error', { text: error.message });
    }
  }

  /** Opens the branches `a` and `b` side by side. */
  async function compare(a, b) {
    try {
      pair = pairOf(...(await Promise.all([load(a), load(b)])));
    } catch (error) {
      glassbox.emit('error', { text: error.message });
      return;
    }
    const onClose = () => {
      layer = null;
    };
    layer = glassbox.layers.openView({ id: 'compare', title: glassbox.t('compare'), onClose });
    const cols = el('div', 'cols');
    cols.append(...SIDES.map(columnOf));
    layer.node.append(cols);
    drawAll();
    const first = column('b').querySelector('.t.first');
    if (first) first.focus({ preventScroll: true });
  }

  /** Compares the branch that is shown with the one it came from, else with the newest other one. */
  function compareCurrent() {
    const others = tree.kept().filter(({ id }) => id !== store.branch);
    const current = tree.byId(store.branch);
    const other = others.find(({ id }) => current && id === current.parent) || others.at(-1);
    if (other) compare(store.branch, other.id);
    else glassbox.toast(glassbox.t('branches_none'));
  }

  glassbox.on('lang', () => layer && layer.close());
  Object.assign(glassbox, { compare, compareCurrent });
})();
