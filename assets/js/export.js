/** The menu of what can be saved: the figure, the numbers that are shown, everything there is, a program that fetches them. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, looks } = glassbox;

  const TYPES = { csv: 'text/csv', json: 'application/json', npz: 'application/octet-stream' };

  /** The part of the pattern that is on the screen: rows and columns, from and to. */
  function shownPart(panel) {
    const n = panel.sight().pattern ? panel.sight().pattern.n : 0;
    const within = (from, to) => [Math.max(0, Math.floor(from)), Math.min(n, Math.ceil(to))];
    if (looks.view === 'lines') {
      const { tops, count } = panel.lines;
      return { rows: within(tops.query, tops.query + count), columns: within(tops.key, tops.key + count) };
    }
    if (looks.view === 'text') return textPart(panel, n);
    const { view } = panel.map;
    return { rows: within(view.y, view.y + view.n), columns: within(view.x, view.x + view.n) };
  }

  /** The text shows one row, or one column. */
  function textPart(panel, n) {
    const { position } = store.selection;
    const whole = [0, n];
    const one = [Math.min(position, n - 1), Math.min(position + 1, n)];
    return looks.way === 'reads' ? { rows: one, columns: whole } : { rows: whole, columns: one };
  }

  const request = (panel) => ({ ...panel.sight().asked.args, ...shownPart(panel) });

  async function saveNumbers(format, panel) {
    const { name, data } = await glassbox.rpc('export_shown', { ...request(panel), format });
    glassbox.files.download(name, glassbox.b64(data), TYPES[format]);
    return name;
  }

  const ACTIONS = {
    async png() {
      const name = glassbox.files.fileName('.png');
      glassbox.files.download(name, await glassbox.figure.png(), 'image/png');
      return name;
    },
    async svg() {
      const name = glassbox.files.fileName('.svg');
      glassbox.files.download(name, glassbox.figure.svg(), 'image/svg+xml');
      return name;
    },
    csv: (panel) => saveNumbers('csv', panel),
    json: (panel) => saveNumbers('json', panel),
    npz: (panel) => saveNumbers('npz', panel),
    async all() {
      glassbox.toast(glassbox.t('export_making'));
      const { name, url } = await glassbox.rpc('export_all', {});
      glassbox.files.downloadFrom(url, name);
      return name;
    },
  };

  const ICONS = { png: 'grid', svg: 'edit', csv: 'table', json: 'braces', npz: 'several', all: 'save', snippet: 'copy' };

  async function run(name) {
    const panel = glassbox.attentionPanel;
    try {
      if (name === 'snippet') {
        const { text } = await glassbox.rpc('snippet', { ...request(panel), origin: location.origin + location.pathname });
        await glassbox.copyText(text, 'export_copied');
      } else glassbox.toast(glassbox.t('export_saved', await ACTIONS[name](panel)));
    } catch (error) {
      glassbox.emit('error', { text: error.message });
    }
  }

  function fill(node, close) {
    const entries = [...Object.keys(ACTIONS), 'snippet'];
    glassbox.fillMenu(node, entries.map((name) => ({
      id: `export-${name}`, icon: ICONS[name], text: glassbox.t(`export_${name}`), note: glassbox.t(`export_note_${name}`),
      action: () => run(name),
    })), close);
  }

  /** Opens the menu at the button that asked for it. */
  function showExport(anchor) {
    glassbox.layers.openCard({ id: 'export-menu', label: glassbox.t('attn_export'), anchor, atEnd: true, fill });
  }

  glassbox.showExport = showExport;
})();
