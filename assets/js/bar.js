/** The bar: which model runs where, how fast, how full its context is; language, theme, keys, share. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;
  const { el, icon, iconButton, int, translate } = glassbox.dom;

  const REST_MS = 150; // figures that change faster cannot be read

  const megabytes = (bytes) => (bytes >= 1e8 ? (bytes / 1e6).toFixed(0) : (bytes / 1e6).toFixed(1));

  /** One figure: an optional name, a value, a class that says how early it gives way on a narrow page. */
  function figure(name, value, cls, tip) {
    const box = el('div', cls);
    if (name) box.append(el('dt', '', name));
    box.append(el('dd', 'num', value));
    if (tip) box.title = tip;
    return box;
  }

  function figures() {
    const { model, tokens } = store;
    const { t } = glassbox;
    if (!model) return [];
    const memory = `${megabytes(model.memory_bytes || 0)} + ${megabytes(store.memory || 0)} MB`;
    return [
      figure(t('tps'), store.tps ? store.tps.toFixed(1) : '–', 'x1'),
      figure(t('context'), `${int(tokens.length)} / ${int(model.block_size)}`, '', t('context_tip')),
      figure(t('memory'), memory, 'x2', t('memory_tip')),
    ];
  }

  function languageSwitch() {
    const group = el('div', 'seg');
    group.id = 'lang';
    group.setAttribute('role', 'group');
    group.dataset.tip = 'language';
    for (const [lang, name] of [
      ['en', 'EN'],
      ['zh', '中文'],
    ]) {
      const button = el('button', '', name);
      button.type = 'button';
      button.dataset.lang = button.lang = lang;
      button.addEventListener('click', () => glassbox.setLang(lang));
      group.append(button);
    }
    return group;
  }

  const turnTheme = () => glassbox.setTheme(store.theme === 'dark' ? 'light' : 'dark');

  function buildBar() {
    const bar = el('header', 'bar');
    const brand = el('div', 'brand');
    brand.append(icon('brand'), el('b', '', 'Glassbox'));
    const right = el('div', 'bar-r');
    right.append(
      languageSwitch(),
      iconButton('theme', 'theme', turnTheme, 'theme'),
      iconButton('help', 'keys', () => glassbox.showKeys(), 'help'),
      glassbox.shareButton(),
    );
    bar.append(brand, glassbox.modelButton(), el('dl', 'stats'), right);
    return bar;
  }

  glassbox.widgets.bar = (root) => {
    const bar = buildBar();
    root.append(bar);
    glassbox.frame(root);
    const stats = bar.querySelector('.stats');
    const draw = () => stats.replaceChildren(...figures());
    let timer = 0;
    const drawSoon = () => {
      timer ||= setTimeout(() => {
        timer = 0;
        draw();
      }, REST_MS);
    };
    const drawTexts = () => {
      translate(root);
      for (const button of bar.querySelectorAll('#lang button')) {
        button.setAttribute('aria-pressed', String(button.dataset.lang === store.lang));
      }
      draw();
    };
    glassbox.on('lang', drawTexts);
    for (const topic of ['hello', 'state', 'tokens']) glassbox.on(topic, drawSoon);
    drawTexts();
    glassbox.mirrorTheme();
  };
})();
