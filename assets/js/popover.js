/**
 * What could have stood where a token stands: opened by hovering for a moment, by a click, a long press or
 * Enter. Each alternative is a button that forks there. Opened by hovering it goes with the pointer, else it
 * stays.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, sampled } = glassbox;
  const { el, mark, iconButton, translate, tokenText, marked, pct, bits } = glassbox.dom;

  const HOVER_MS = 180;
  const LEAVE_MS = 160;
  const PRESS_MS = 450;
  const PRESS_MOVE = 10;
  const ROWS = 12;
  const EDGE = 12;

  const filterName = (by) => glassbox.distribution.removerName(by);

  let node = null;
  /** @type {null|{position: number, anchor: HTMLElement, pinned: boolean}} */ let shown = null;
  let timer = 0;

  // ---- what it shows ----

  /** The likeliest candidates; the chosen one takes the last place when it is not among them. */
  function listed(token) {
    const rows = token.cand.map((candidate, rank) => ({ candidate, rank: rank + 1 }));
    const top = rows.slice(0, ROWS);
    const chosen = rows.find(({ candidate }) => candidate[0] === token.id);
    if (chosen && !top.includes(chosen)) top[ROWS - 1] = { ...chosen, rank: token.rank };
    return top;
  }

  function bars(raw, final, by, largest) {
    const box = el('span', 'bb');
    const before = el('i');
    before.style.width = `${(raw / largest) * 100}%`;
    box.append(before);
    if (by) return box;
    const after = el('b');
    after.style.width = `${(final / largest) * 100}%`;
    box.append(after);
    return box;
  }

  function candidateRow(token, { candidate, rank }, largest) {
    const [id, text, raw, final, by] = candidate;
    const chosen = id === token.id;
    const row = el('button', `cand${chosen ? ' ch' : ''}${by ? ' rm' : ''}`);
    row.type = 'button';
    Object.assign(row.dataset, { tokenId: id, raw, final, removedBy: by });
    const name = mark(el('span', 'tx'), text);
    if (chosen) name.append(el('i', 'mk'));
    const after = by ? el('span', 'why', filterName(by)) : el('span', 'p', pct(final));
    row.append(
      el('span', 'rk', rank),
      name,
      bars(raw, final, by, largest),
      el('span', 'p p1', pct(raw)),
      after,
    );
    const notes = [chosen && glassbox.t('pop_chosen'), by && glassbox.t('pop_removed', filterName(by))];
    const list = glassbox.t('pop_list', marked(text), pct(raw), pct(final));
    row.setAttribute('aria-label', [list, ...notes.filter(Boolean)].join(', '));
    row.addEventListener('click', () => {
      glassbox.actions.fork(token.i, id);
      hide();
    });
    return row;
  }

  function header(token) {
    const { t } = glassbox;
    const head = el('header');
    const facts = [t('pop_token', token.i)];
    if (sampled(token)) facts.push(t('pop_rank', token.rank), t('pop_bits', bits(-token.lp).toFixed(1)));
    if (token.part && token.part[1]) facts.push(t('pop_part', ...token.part));
    head.append(mark(el('b'), tokenText(token)), el('span', 'num', facts.join(', ')));
    return head;
  }

  function footer(token) {
    const { t } = glassbox;
    const foot = el('footer', 'num');
    const settings = store.settings[token.par];
    const drawn = token.u == null ? t('pop_hand') : t('pop_draw', token.u.toFixed(3));
    foot.append(
      el('p', '', [settings && glassbox.settingsLabel(settings), drawn].filter(Boolean).join(', ')),
    );
    const way = el('p', '', `${t('pop_fork')} `);
    way.append(toPanel('pop_any', () => glassbox.choice.search(token.i)));
    foot.append(way);
    return foot;
  }

  /** Where the sampling panel knows more of this token than is on the page. */
  function toPanel(key, open) {
    const button = el('button', 'act', glassbox.t(key));
    button.type = 'button';
    button.addEventListener('click', () => {
      hide();
      open();
    });
    return button;
  }

  function givenText(token) {
    const key = {
      user: 'pop_given_user',
      text: 'pop_given_user',
      assistant: 'pop_given_reply',
      template: 'pop_given_template',
    }[token.role] || 'pop_given';
    const text = el('p', 'given', `${glassbox.t(key)} `);
    if (token.i > 0) text.append(toPanel('pop_look', () => glassbox.choice.look(token.i)));
    return text;
  }

  function fill(token) {
    node.replaceChildren(header(token));
    node.classList.toggle('small', !sampled(token));
    if (!sampled(token)) return node.append(givenText(token));
    const rows = listed(token);
    const largest = Math.max(1e-9, ...rows.map(({ candidate }) => Math.max(candidate[2], candidate[3])));
    const list = el('div', 'cands');
    list.append(...rows.map((row) => candidateRow(token, row, largest)));
    const titles = el('div', 'cand titles');
    titles.append(el('span'), el('span'), el('span'));
    titles.append(el('span', 'p', glassbox.t('pop_raw')), el('span', 'p', glassbox.t('pop_after')));
    const close = iconButton('close', 'close', () => hide(true));
    close.classList.add('shut');
    node.append(titles, list, footer(token), close);
    return translate(node);
  }

  // ---- where it stands ----

  /** Under the token where there is room, else above it, always inside the window. */
  function place(anchor) {
    node.style.maxHeight = '';
    const line = anchor.getClientRects()[0] || anchor.getBoundingClientRect();
    const { width, height } = node.getBoundingClientRect();
    const panel = anchor.closest('.chat').getBoundingClientRect(); // the other panels stay in sight
    const left = Math.max(EDGE, Math.min(panel.right - width - EDGE, line.left - EDGE));
    const below = window.innerHeight - line.bottom - EDGE;
    const above = line.top - EDGE;
    const under = height <= below || below >= above;
    const room = Math.max(160, under ? below : above) - 6;
    const top = under ? line.bottom + 5 : line.top - 5 - Math.min(height, room);
    node.style.maxHeight = `${room}px`;
    node.style.left = `${left}px`;
    node.style.top = `${Math.max(EDGE, Math.min(top, window.innerHeight - Math.min(height, room) - EDGE))}px`;
  }

  function build() {
    node = el('div', 'gb-layer pop');
    node.id = 'popover';
    node.hidden = true;
    node.tabIndex = -1;
    node.setAttribute('role', 'dialog');
    node.addEventListener('keydown', onKey);
    node.addEventListener('pointerenter', () => clearTimeout(timer));
    node.addEventListener('pointerleave', (event) => event.pointerType === 'mouse' && leave());
    document.body.append(node);
  }

  function show(position, anchor, { pinned = false, focus = false } = {}) {
    const token = store.tokens[position];
    if (!token || !anchor) return;
    clearTimeout(timer);
    if (!node) build();
    shown = { position, anchor, pinned };
    node.setAttribute('aria-label', glassbox.t('pop_label'));
    fill(token);
    node.hidden = false;
    place(anchor);
    if (!pinned) glassbox.hoverAt({ query: position });
    if (focus) (node.querySelector('.cands button') || node).focus();
  }

  function hide(giveFocus) {
    clearTimeout(timer);
    if (!shown) return false;
    const { anchor } = shown;
    shown = null;
    node.hidden = true;
    glassbox.hoverAt(null);
    if (giveFocus === true) anchor.focus();
    return true;
  }

  function leave() {
    clearTimeout(timer);
    timer = setTimeout(() => shown && !shown.pinned && hide(), LEAVE_MS);
  }

  function onKey(event) {
    const buttons = [...node.querySelectorAll('.cands button')];
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to !== undefined && buttons.length) buttons[Math.max(0, Math.min(buttons.length - 1, to))].focus();
    else if (event.key === 'Escape') hide(true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // ---- gestures on the transcript ----

  const spanOf = (event) => (event.target.closest ? event.target.closest('[data-pos]') : null);
  const positionOf = (span) => Number(span.dataset.pos);

  function onOver(event) {
    const span = spanOf(event);
    if (!span || event.pointerType !== 'mouse' || (shown && shown.pinned)) return;
    clearTimeout(timer);
    timer = setTimeout(() => span.isConnected && show(positionOf(span), span), HOVER_MS);
  }

  function onOut(event) {
    if (event.pointerType === 'mouse' && spanOf(event)) leave();
  }

  /** Selects a token and keeps its alternatives open. */
  function pick(span) {
    glassbox.select({ position: positionOf(span) });
    show(positionOf(span), span, { pinned: true });
  }

  function onClick(event) {
    const span = spanOf(event);
    if (!span || String(window.getSelection())) return;
    pick(span);
  }

  /** A finger that rests on a token opens it; one that moves scrolls. */
  function addLongPress(log) {
    let press = null;
    const end = () => {
      clearTimeout(press && press.timer);
      press = null;
    };
    log.addEventListener('pointerdown', (event) => {
      const span = spanOf(event);
      if (!span || event.pointerType === 'mouse') return;
      const open = () => pick(span);
      press = { x: event.clientX, y: event.clientY, timer: setTimeout(open, PRESS_MS) };
    });
    log.addEventListener('pointermove', (event) => {
      if (press && Math.hypot(event.clientX - press.x, event.clientY - press.y) > PRESS_MOVE) end();
    });
    log.addEventListener('pointerup', end);
    log.addEventListener('pointercancel', end);
    log.addEventListener('contextmenu', (event) => press && event.preventDefault());
  }

  /** Opens tokens of this transcript; Enter on a focused one moves the focus into the list. */
  function attach(log) {
    log.addEventListener('pointerover', onOver);
    log.addEventListener('pointerout', onOut);
    log.addEventListener('click', onClick);
    log.addEventListener('scroll', () => shown && !shown.pinned && hide(), { passive: true });
    addLongPress(log);
  }

  document.addEventListener('pointerdown', (event) => {
    if (shown && !event.target.closest('#popover') && !event.target.closest('[data-pos]')) hide();
  });
  window.addEventListener('resize', () => hide());
  glassbox.on('tokens', ({ from }) => shown && from <= shown.position && hide());
  glassbox.on(
    'selection',
    () => shown && shown.pinned && shown.position !== store.selection.position && hide(),
  );
  glassbox.on('lang', () => hide());

  glassbox.popover = { attach, show, hide, isOpen: () => shown !== null };
})();
