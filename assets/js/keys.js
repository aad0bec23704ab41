/** The keyboard: one table of keys, ignored while somebody types; and the dialog that lists them. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;
  const { el, iconButton, translate } = glassbox.dom;

  const LIST = [
    [['←', '→'], 'key_arrows'],
    [['End'], 'key_end'],
    [['Enter'], 'key_enter'],
    [['↑', '↓'], 'key_updown'],
    [['[', ']'], 'key_head'],
    [['{', '}'], 'key_layer'],
    [['Space'], 'key_space'],
    [['.'], 'key_step'],
    [['r'], 'key_regenerate'],
    [['m'], 'key_several'],
    [['Ctrl', 'Enter'], 'key_send_several'],
    [['v'], 'key_view'],
    [['p'], 'key_pin'],
    [['e'], 'key_export'],
    [['b'], 'key_branches'],
    [['c'], 'key_compare'],
    [['Esc'], 'key_escape'],
    [['?'], 'key_help'],
  ];

  // ---- the dialog ----

  let dialog = null;

  function fillDialog() {
    const head = el('header');
    head.append(
      el('h2', '', glassbox.t('keys_title')),
      iconButton('close', 'close', () => dialog.close()),
    );
    const list = el('dl');
    for (const [keys, text] of LIST) {
      const names = el('dt');
      names.append(...keys.map((key) => el('kbd', '', key)));
      list.append(names, el('dd', '', glassbox.t(text)));
    }
    dialog.replaceChildren(head, list, el('p', '', glassbox.t('keys_mouse')));
    translate(dialog);
  }

  function showKeys() {
    if (!dialog) {
      dialog = el('dialog', 'gb-layer');
      dialog.id = 'keys';
      dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
      document.body.append(dialog);
    }
    dialog.setAttribute('aria-label', glassbox.t('keys_title'));
    fillDialog();
    if (!dialog.open) dialog.showModal();
  }

  // ---- moving the selection ----

  /** The next token that is shown in the transcript, so that the eye can follow. */
  function nextShown(from, step) {
    let at = from + step;
    while (at >= 0 && at < store.tokens.length && !glassbox.tokenNode(at)) at += step;
    return glassbox.tokenNode(at) ? at : -1;
  }

  function move(step) {
    const focused = document.activeElement && document.activeElement.closest('[data-pos]');
    const at = nextShown(store.selection.position, step);
    if (at < 0) return;
    glassbox.hoverAt(null);
    glassbox.select({ position: at });
    glassbox.revealToken(at, Boolean(focused));
  }

  function newest() {
    glassbox.select({ position: store.tokens.length - 1, follow: true });
    glassbox.scrollToEnd();
  }

  /** Up and down walk the list of alternatives, wherever it stands: the sampling panel's buttons. */
  function walkList(step) {
    const rows = [...document.querySelectorAll('#distribution [data-token-id]')].filter(
      (row) => row.tabIndex >= 0,
    );
    if (!rows.length) return;
    const at = rows.indexOf(document.activeElement);
    rows[at < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, at + step))].focus();
  }

  function openSelected() {
    const node = glassbox.tokenNode(store.selection.position);
    if (!node) return;
    node.scrollIntoView({ block: 'nearest' });
    glassbox.popover.show(store.selection.position, node, { pinned: true, focus: true });
  }

  // ---- the table ----

  const { actions } = glassbox;
  const turn = (field, step) => glassbox.select({ [field]: store.selection[field] + step });

  function pauseOrGo() {
    if (glassbox.replay.isOn()) glassbox.replay.stop();
    else if (store.streaming) actions.stop();
    else if (actions.canResume()) actions.resume();
  }

  function escape() {
    if (glassbox.popover.hide(true) || glassbox.layers.closeTop()) return;
    if (glassbox.replay.isOn()) glassbox.replay.stop();
    else if (store.streaming) actions.stop();
    else glassbox.setSheet(false);
  }

  const KEYS = {
    ArrowLeft: () => move(-1),
    ArrowRight: () => move(1),
    ArrowUp: () => walkList(-1),
    ArrowDown: () => walkList(1),
    End: newest,
    Enter: openSelected,
    Escape: escape,
    ' ': pauseOrGo,
    '.': () => actions.resume(1),
    r: () => actions.regenerate(),
    R: () => actions.regenerate({ newSeed: true }),
    m: () => glassbox.several.showMenu(document.getElementById('several')),
    b: () => glassbox.showBranches(),
    c: () => glassbox.compareCurrent(),
    v: () => glassbox.sights.turn('view'),
    p: () => glassbox.sights.togglePin(),
    e: () => glassbox.showExport(document.getElementById('export')),
    '?': showKeys,
    '[': () => turn('head', -1),
    ']': () => turn('head', 1),
    '{': () => turn('layer', -1),
    '}': () => turn('layer', 1),
  };

  const TYPING = 'textarea, select, input:not([type=checkbox]), [contenteditable=true]';
  const PRESSABLE = 'button, summary, a, input, [role=button], [role=tab]';

  /** Whether the focused element wants this key for itself. */
  function isTaken(event) {
    const { target, key } = event;
    if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey)
      return true;
    if (document.querySelector('dialog[open]')) return true;
    if (glassbox.layers.covers() && !['Escape', '?'].includes(key)) return true; // the chat cannot be seen
    if (!target.closest) return false;
    if (target.closest(TYPING)) return key !== 'Escape';
    return Boolean((key === ' ' || key === 'Enter') && target.closest(PRESSABLE));
  }

  document.addEventListener('keydown', (event) => {
    if (!(event.key in KEYS) || isTaken(event)) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  glassbox.on('lang', () => dialog && dialog.open && fillDialog());

  glassbox.showKeys = showKeys;
})();
