/** Language and theme: what the reader chose before, else what the browser prefers; and the strings. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store } = glassbox;
  const KEYS = { lang: 'glassbox.lang', theme: 'glassbox.theme' };

  /** What was kept under a key, else null. localStorage throws where cookies are refused: nothing was kept. */
  function recall(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  }

  function remember(key, value) {
    try {
      localStorage.setItem(key, value);
    } catch {
      // Private windows may refuse: the choice lasts until the page closes.
    }
  }

  /** The string of `key` in the page's language, with {0}, {1} ... replaced. A missing key shows itself. */
  function t(key, ...args) {
    const strings = window.GLASSBOX_STRINGS || {};
    const text = (strings[store.lang] || {})[key] ?? (strings.en || {})[key] ?? key;
    return text.replace(/\{(\d)\}/g, (whole, n) => (n in args ? args[n] : whole));
  }

  function setLang(lang) {
    store.lang = lang === 'zh' ? 'zh' : 'en';
    document.documentElement.lang = store.lang === 'zh' ? 'zh-Hans' : 'en';
    remember(KEYS.lang, store.lang);
    glassbox.emit('lang', store.lang);
  }

  /** Gradio reads body.dark; everything of ours reads data-theme. */
  function mirrorTheme() {
    document.documentElement.dataset.theme = store.theme;
    if (document.body) document.body.classList.toggle('dark', store.theme === 'dark');
  }

  function showTheme(theme) {
    store.theme = theme === 'dark' ? 'dark' : 'light';
    mirrorTheme();
    glassbox.emit('theme', store.theme);
  }

  function setTheme(theme) {
    remember(KEYS.theme, theme);
    showTheme(theme);
  }

  function start() {
    const asked = new URLSearchParams(location.search).get('__theme');
    const system = window.matchMedia('(prefers-color-scheme: dark)');
    const theme = ['light', 'dark'].includes(asked) ? asked : recall(KEYS.theme);
    const lang = recall(KEYS.lang) || ((navigator.language || '').startsWith('zh') ? 'zh' : 'en');
    store.theme = theme || (system.matches ? 'dark' : 'light');
    store.lang = lang === 'zh' ? 'zh' : 'en';
    document.documentElement.lang = store.lang === 'zh' ? 'zh-Hans' : 'en';
    mirrorTheme();
    window.addEventListener('load', mirrorTheme);
    system.addEventListener('change', () => {
      if (!asked && !recall(KEYS.theme)) showTheme(system.matches ? 'dark' : 'light'); // until somebody chooses
    });
  }

  Object.assign(glassbox, { t, setLang, setTheme, mirrorTheme, recall, remember });
  start();
})();
