/**
 * The chat panel: header, transcript, legend, composer; and the page's line to the server, which this widget
 * holds.
 */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, actions } = glassbox;
  const { el, icon, int, translate, debounceFrame } = glassbox.dom;

  const REPLIES = ['assistant', 'text']; // where the model writes: a message of its own, or on in a text
  const NEAR_END = 48; // pixels from the bottom that still count as being there

  /** @type {import('./transcript').Transcript|null} */ let transcript = null;
  let ink = null;
  let stuck = true;
  let lastTop = 0;

  const tokenNode = (position) => (transcript && transcript.spans[position]) || null;

  // ---- header ----

  function inkSwitch() {
    const group = el('div', 'seg sm');
    group.id = 'ink';
    group.setAttribute('role', 'group');
    group.dataset.tip = 'ink';
    for (const mode of ['read', 'surprise']) {
      const button = el('button');
      button.type = 'button';
      button.dataset.ink = mode;
      button.dataset.t = `ink_${mode}`;
      button.addEventListener('click', () => glassbox.setInk(mode));
      group.append(button);
    }
    return group;
  }

  function newChatButton() {
    const button = el('button', 'btn');
    button.type = 'button';
    button.id = 'new-chat';
    const text = el('span');
    text.dataset.t = 'new_chat';
    button.append(icon('add'), text);
    button.addEventListener('click', async () => {
      if (await actions.newChat()) document.getElementById('message').focus();
    });
    return button;
  }

  function buildHeader() {
    const header = el('div', 'ph');
    const title = el('h2');
    title.id = 'h-chat';
    title.dataset.t = 'chat';
    header.append(title, newChatButton(), el('span', 'grow'), inkSwitch());
    return header;
  }

  // ---- transcript ----

  function buildLog() {
    const log = el('div', 'scroll');
    log.id = 'transcript';
    log.tabIndex = 0;
    log.setAttribute('role', 'log');
    log.setAttribute('aria-live', 'off');
    log.addEventListener('scroll', () => noticeScroll(log), { passive: true });
    return log;
  }

  /** Only scrolling up lets go of the end: text that arrived since the last scroll must not. */
  function noticeScroll(log) {
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END;
    if (atEnd || !transcript.bubbles.length) stuck = true;
    else if (log.scrollTop < lastTop - 1) stuck = false;
    lastTop = log.scrollTop;
    log.parentNode.classList.toggle('away', !stuck);
  }

  /** The welcome of an empty conversation is read from its beginning. */
  function scrollToEnd() {
    // reading the height first would lay the page out twice
    transcript.log.scrollTop = transcript.bubbles.length ? 1e9 : 0;
    stuck = true;
  }

  function latestButton() {
    const button = el('button', 'latest');
    button.type = 'button';
    button.dataset.tip = 'latest';
    button.append(icon('down'));
    button.addEventListener('click', scrollToEnd);
    return button;
  }

  /** Brings a token into view; with `focus` it takes the keyboard too. */
  function revealToken(position, focus) {
    const node = tokenNode(position);
    if (!node) return;
    node.scrollIntoView({ block: 'nearest' });
    if (focus) node.focus();
  }

  /** Only the selected token can be reached with Tab: two thousand stops would be none. */
  let tabStop = null;
  function moveTabStop() {
    const node = tokenNode(store.selection.position);
    if (node === tabStop) return;
    if (tabStop) tabStop.removeAttribute('tabindex');
    if (node) node.tabIndex = 0;
    tabStop = node;
  }

  // ---- state ----

  /**
   * While the prompt is being read there is no token yet: a reply without text stands for it; and for several
   * replies of which none was chosen.
   */
  function drawReading(waiting) {
    const { last } = transcript;
    const { samples } = store;
    const show = samples || (store.streaming && !(last && REPLIES.includes(last.role)));
    waiting.hidden = !show;
    if (!show) return;
    const text = samples
      ? glassbox.t('samples_waiting', samples.list.length)
      : glassbox.t('reading', int(store.tokens.length));
    waiting.querySelector('b').textContent = transcript.replyName();
    waiting.querySelector('.txt').textContent = text;
    waiting.querySelector('.link').hidden = !samples;
    waiting.classList.toggle('choose', Boolean(samples));
    if (transcript.log.lastChild !== waiting) transcript.log.append(waiting);
  }

  function announceEnd(status) {
    const { last } = transcript;
    if (!last || !REPLIES.includes(last.role)) return;
    const key = store.finish === 'stopped' ? 'reply_stopped' : 'reply_done';
    status.textContent = glassbox.t(key, last.positions.length);
  }

  /** What tests and style sheets read; only what changed is written. */
  function markLog(log, facts) {
    for (const [name, value] of Object.entries(facts)) {
      if (log.dataset[name] !== String(value)) log.dataset[name] = value;
    }
  }

  function onState(parts) {
    const { log, status } = parts;
    const before = log.dataset.state;
    const now = store.streaming ? 'streaming' : 'idle';
    markLog(log, { state: now, run: store.run, n: transcript.shown });
    if (before !== now) {
      log.setAttribute('aria-busy', String(store.streaming));
      transcript.drawMetas(2);
      drawEmpty(parts);
      if (now === 'idle') announceEnd(status);
    }
    parts.drawLive();
  }

  function drawEmpty({ panel, log, welcome }) {
    const empty = !store.streaming && !transcript.bubbles.some(({ role }) => role !== 'system');
    panel.classList.toggle('fresh', empty);
    if (!empty) return welcome.remove();
    glassbox.drawWelcome(welcome);
    return log.append(welcome);
  }

  function onTokens(parts, { from }) {
    transcript.update(from);
    markLog(parts.log, { n: transcript.shown, bands: glassbox.bandLabels().length });
    const empty = !transcript.bubbles.some(({ role }) => role !== 'system');
    if (empty || parts.welcome.isConnected) drawEmpty(parts);
    parts.paint();
    parts.drawLive();
  }

  function drawInkSwitch(panel) {
    for (const button of panel.querySelectorAll('#ink button')) {
      button.setAttribute('aria-pressed', String(button.dataset.ink === glassbox.inkMode()));
    }
  }

  function listen(parts) {
    const { panel, legend } = parts;
    parts.drawLive = debounceFrame(() => {
      transcript.drawMetas(1);
      drawReading(parts.waiting);
      if (stuck) scrollToEnd();
    });
    parts.paint = debounceFrame(() => {
      ink.paint();
      moveTabStop();
      drawInkSwitch(panel);
      glassbox.drawLegend(legend);
    });
    glassbox.on('tokens', (change) => onTokens(parts, change));
    glassbox.on('state', () => onState(parts));
    glassbox.on('samples', ({ fresh }) => fresh && parts.drawLive());
    for (const topic of ['selection', 'hover', 'ink', 'attention', 'look', 'theme']) glassbox.on(topic, parts.paint);
    new ResizeObserver(() => stuck && scrollToEnd()).observe(parts.log);
    glassbox.on('replay', (cut) => ink.dim(cut));
    for (const topic of ['hello', 'mode']) glassbox.on(topic, () => drawEmpty(parts));
    for (const topic of ['hello', 'state', 'acted', 'lang', 'mode']) {
      glassbox.on(topic, () => glassbox.drawExample(parts.example));
    }
    glassbox.on('lang', () => drawTexts(parts));
  }

  function drawTexts(parts) {
    translate(parts.panel);
    parts.log.setAttribute('aria-label', glassbox.t('transcript'));
    transcript.drawMetas(Infinity);
    drawEmpty(parts);
    translate(parts.waiting);
    drawReading(parts.waiting);
    parts.paint();
  }

  function buildWaiting() {
    const node = el('div', 'msg assistant waiting');
    const who = el('div', 'who');
    who.append(el('b'));
    const show = el('button', 'link');
    show.type = 'button';
    show.id = 'samples-show';
    show.dataset.t = 'samples_show';
    show.addEventListener('click', () => glassbox.showSamples());
    node.append(who, el('div', 'txt'), show);
    node.hidden = true;
    return node;
  }

  glassbox.widgets.chat = (root, api) => {
    const panel = el('section', 'chat fresh');
    panel.setAttribute('aria-labelledby', 'h-chat');
    const log = buildLog();
    const stage = el('div', 'stage');
    stage.append(log, latestButton());
    const legend = el('div', 'legend');
    const status = el('div', 'visually-hidden');
    status.setAttribute('role', 'status');
    const example = el('div', 'recorded');
    example.hidden = true;
    panel.append(buildHeader(), stage, example, legend, status);
    root.append(panel);
    glassbox.composer(panel);
    transcript = new glassbox.Transcript(log);
    ink = new glassbox.Ink(transcript);
    glassbox.popover.attach(log);
    const parts = {
      panel,
      log,
      legend,
      status,
      example,
      waiting: buildWaiting(),
      welcome: el('div', 'welcome'),
    };
    listen(parts);
    transcript.update(0);
    onState(parts);
    drawTexts(parts);
    glassbox.connect(api);
  };

  Object.assign(glassbox, { tokenNode, revealToken, scrollToEnd });
})();
