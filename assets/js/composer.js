/**
 * Where a message is written: the box, what can be done with the reply, notices above it. Text is never lost.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, actions } = glassbox;
  const { el, icon, iconButton, translate } = glassbox.dom;

  const LINES = 6;
  const LINE = 22; // as in chat.css
  const HINT_MS = 2500;
  const NOTICES = 3;
  const DRAFT = 'glassbox.draft';

  // ---- the box ----

  /** As tall as its text, up to six lines. */
  function grow(box) {
    box.style.height = 'auto';
    const height = Math.min(box.scrollHeight, LINES * LINE + 6);
    box.style.height = `${height}px`;
    box.style.overflowY = box.scrollHeight > height ? 'auto' : 'hidden';
  }

  function setText(box, text) {
    box.value = text;
    sessionStorage.setItem(DRAFT, text);
    grow(box);
  }

  let hintTimer = 0;

  function showHint(hint, key) {
    hint.textContent = glassbox.t(key);
    clearTimeout(hintTimer);
    hintTimer = setTimeout(() => hint.replaceChildren(), HINT_MS);
  }

  /** Hands what is written to `action`; when that fails it comes back into the box. */
  async function submit({ box, hint }, action) {
    const text = box.value;
    if (store.samples) {
      glassbox.showSamples();
      glassbox.toast(glassbox.t('samples_first'));
      return;
    }
    if (!text.trim() && store.raw && actions.canResume()) {
      actions.resume();
      return;
    }
    if (!text.trim()) {
      showHint(hint, 'empty_message');
      box.focus();
      return;
    }
    setText(box, '');
    const taken = await action(text);
    if (!taken) setText(box, box.value ? `${text}\n${box.value}` : text);
  }

  const send = (parts) => submit(parts, actions.send);

  /**
   * Enter sends, with Ctrl several times, with Shift it breaks the line; Enter that ends an input method's
   * composition does none of these.
   */
  function onKey(event, parts) {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) glassbox.several.sendDraft();
    else send(parts);
  }

  /** How many replies at once: opens the card where that is chosen. */
  function severalButton() {
    const button = el('button', 'several num');
    button.type = 'button';
    button.id = 'several';
    button.dataset.tip = 'several_tip';
    button.setAttribute('aria-haspopup', 'dialog');
    const draw = () => {
      button.textContent = `×${glassbox.several.choice.n}`;
    };
    button.addEventListener('click', () => glassbox.several.showMenu(button));
    glassbox.on('samples-choice', draw);
    draw();
    return button;
  }

  function buildInput(parts) {
    const row = el('div', 'inp');
    const box = el('textarea');
    box.id = 'message';
    box.rows = 1;
    box.dir = 'auto';
    box.dataset.label = 'message';
    parts.box = box;
    box.addEventListener('input', () => setText(box, box.value));
    box.addEventListener('keydown', (event) => onKey(event, parts));
    const button = el('button', 'send');
    button.type = 'button';
    button.id = 'send';
    button.dataset.tip = 'send';
    button.append(icon('send'));
    button.addEventListener('click', () => send(parts));
    row.append(box, severalButton(), button);
    row.addEventListener('pointerdown', (event) => event.target === row && setTimeout(() => box.focus()));
    return row;
  }

  // ---- what can be done with the reply ----

  function buildControls(parts) {
    const row = el('div', 'ctl');
    row.setAttribute('role', 'group');
    const again = (event) => actions.regenerate({ newSeed: event.shiftKey });
    Object.assign(parts, {
      stop: iconButton('stop', 'stop', actions.stop, 'stop'),
      resume: iconButton('resume', 'resume', () => actions.resume(), 'resume'),
      step: iconButton('step', 'step', () => actions.resume(1), 'step'),
      again: iconButton('again', 'regenerate', again, 'regenerate'),
      dice: iconButton(
        'dice',
        'regenerate_new',
        () => actions.regenerate({ newSeed: true }),
        'regenerate-new',
      ),
    });
    parts.several = iconButton(
      'several',
      'several_again',
      () => glassbox.several.showMenu(parts.several),
      'several-again',
    );
    row.append(parts.stop, parts.resume, parts.step, parts.again, parts.dice, parts.several);
    return row;
  }

  function drawControls(parts) {
    const more = actions.canResume();
    parts.stop.disabled = !store.streaming;
    parts.stop.hidden = more;
    parts.resume.hidden = !more;
    parts.step.disabled = !more;
    parts.again.disabled = parts.dice.disabled = parts.several.disabled = !actions.hasReply();
  }

  // ---- notices ----

  /** A line above the box that stays until it is dismissed or the next action works. */
  function addNotice(notices, text, { kind = 'info', action = null, keep = false } = {}) {
    const before = [...notices.children].find((line) => line.firstChild.textContent === text);
    if (before && before.classList.contains('lasting')) return;
    if (before) before.remove();
    const line = el('div', `notice ${kind}${keep ? ' lasting' : ''}`);
    line.setAttribute('role', kind === 'info' ? 'status' : 'alert');
    line.append(el('span', '', text));
    if (action) line.append(action);
    if (!keep) line.append(iconButton('close', 'dismiss', () => line.remove()));
    translate(line);
    notices.append(line);
    while (notices.children.length > NOTICES) notices.firstChild.remove();
  }

  function reloadButton() {
    const button = el('button', 'btn', glassbox.t('reload'));
    button.type = 'button';
    button.addEventListener('click', () => location.reload());
    return button;
  }

  function listenForNotices(notices) {
    glassbox.on('acted', () =>
      notices.querySelectorAll('.notice:not(.lasting)').forEach((line) => line.remove()),
    );
    glassbox.on('error', ({ text, field }) => {
      if (field in store.params) return; // said at its control
      glassbox.toast(text);
      addNotice(notices, text, { kind: 'error' });
    });
    glassbox.on('notice', ({ text, action }) => {
      if (!action) glassbox.toast(text);
      addNotice(notices, text, { action });
    });
    glassbox.on('lost', (text) => {
      document.body.dataset.lost = '';
      addNotice(notices, text, { kind: 'error', action: reloadButton(), keep: true });
    });
  }

  // ---- all of it ----

  /** Adds the composer to the chat panel. */
  function composer(root) {
    const parts = { notices: el('div', 'notices'), hint: el('span', 'hint') };
    parts.hint.setAttribute('role', 'status');
    const branches = el('div', 'branches num');
    const row = el('div', 'crow');
    row.append(glassbox.modeSwitch(), branches, parts.hint, buildControls(parts));
    const panel = el('div', 'composer');
    panel.append(parts.notices, row, buildInput(parts));
    root.append(panel);
    listenForNotices(parts.notices);
    glassbox.submitDraft = (action) => submit(parts, action);
    glassbox.hasDraft = () => parts.box.value.trim() !== '';
    const draw = glassbox.dom.debounceFrame(() => {
      drawControls(parts);
      parts.box.placeholder = glassbox.placeholder();
    });
    for (const topic of ['state', 'tokens', 'hello', 'mode']) glassbox.on(topic, draw);
    glassbox.on('branches', () => glassbox.drawBranches(branches));
    const drawTexts = () => {
      parts.box.placeholder = glassbox.placeholder();
      parts.box.setAttribute('aria-label', glassbox.t('message'));
      translate(panel);
      glassbox.drawBranches(branches);
    };
    glassbox.on('lang', drawTexts);
    glassbox.on('hello', drawTexts);
    drawTexts();
    drawControls(parts);
    setText(parts.box, sessionStorage.getItem(DRAFT) || '');
    window.addEventListener('resize', () => grow(parts.box));
  }

  glassbox.composer = composer;
})();
