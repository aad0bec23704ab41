/** What the attention panel says around its views: names, colour bar, controls, what is compared, what is missing. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, dom, looks, sights } = glassbox;

  const { format } = glassbox.readout;

  /** Ends of a colour bar in few digits. */
  const endText = (kind, value) => {
    if (kind === 'score') return value.toFixed(1);
    if (kind === 'value') return value.toPrecision(2);
    return String(Number(Math.abs(value) < 0.1 ? value.toPrecision(1) : value.toFixed(2)));
  };

  function writeBar(shade, shown) {
    if (!shown) return;
    const { kind, bar } = shown;
    const at = glassbox.picture.valueAt(kind, bar, looks.least);
    const low = looks.scale === 'log' && kind !== 'score' ? Math.max(bar.low, glassbox.picture.LOG_FLOOR) : bar.low;
    shade.show({
      gradient: glassbox.picture.gradient(kind),
      low: endText(kind, kind === 'difference' ? bar.low : low),
      high: endText(kind, bar.high),
      at: kind === 'score' ? at.toFixed(1) : format('weight', at),
      mirrored: kind === 'difference',
    });
    if (shade.least !== looks.least) shade.place(looks.least);
  }

  function writeZoom(button, map) {
    button.hidden = !map.zoomed;
    if (map.zoomed) button.firstChild.textContent = `× ${(map.span(map.rows) / map.view.n).toFixed(1)}`;
  }

  /** Without a row: what to do, or that the model is reading. */
  function writeEmpty(box, pattern) {
    const { t } = glassbox;
    const [title, text] = box.children;
    box.hidden = pattern !== null || !store.model;
    const reading = store.tokens.length > 0;
    title.textContent = reading ? t('attn_reading', store.tokens.length) : t('attn_empty');
    text.textContent = reading ? '' : t('attn_empty_text');
  }

  /** Rows that cannot be shown, because their queries were not kept, are told of. */
  function writeKept(node) {
    node.hidden = !store.firstRow;
    if (store.firstRow) node.textContent = glassbox.t('attn_kept', dom.int(store.firstRow), dom.int(store.rows - store.firstRow));
  }

  /** What tests and screen readers are told. */
  function writeHooks({ heat, others }, { sight, pattern }) {
    const [[layer, head]] = sight.args.heads;
    const rows = pattern ? pattern.n : 0;
    const name = sights.sightName(sight);
    const { map } = heat.main;
    Object.assign(map.dataset, { layer, head, rows, kind: sight.kind, key: sight.key });
    map.setAttribute('aria-label', glassbox.t('attn_map_label', name, rows));
    others.linesCanvas.setAttribute('aria-label', glassbox.t('attn_lines_label', name));
    others.scroll.setAttribute('aria-label', glassbox.t('attn_text_label', name));
  }

  // ---- what is compared ----

  function sideText(letter, sight, position) {
    const token = store.tokens[position];
    const text = token ? dom.marked(dom.tokenText(token)) : '';
    return `${letter}  ${sights.shortName(sight)}  ${text} ${position}`;
  }

  function writeBranches(select) {
    const names = store.branches.map((branch) => [branch.id, `${glassbox.tree.nameOf(branch)} (${branch.n})`]);
    const key = JSON.stringify(names);
    select.hidden = store.branches.length < 2;
    if (select.dataset.shown !== key) {
      select.dataset.shown = key;
      select.replaceChildren(...names.map(([id, text]) => new Option(text, id)));
    }
    select.value = String(looks.pin.branch);
  }

  function writeVersus({ bar, pinned, current, branch, how }) {
    const { pin, view } = looks;
    bar.hidden = !pin;
    if (!pin) return;
    dom.setText(pinned, sideText('A', sights.pinnedSight(), pin.position));
    dom.setText(current, sideText('B', sights.sightAt(store.selection), store.selection.position));
    how.hidden = view !== 'map';
    writeBranches(branch);
  }

  // ---- controls ----

  /** Brings every control in line with the settings. */
  function writeControls({ panel, head, top, versus, heat, others }) {
    for (const select of panel.querySelectorAll('select[data-look]')) select.value = looks[select.dataset.look];
    for (const button of panel.querySelectorAll('button[data-look]')) {
      button.setAttribute('aria-pressed', String(looks[button.dataset.look] === button.dataset.choice));
    }
    const rollout = looks.over === 'rollout';
    top.what.disabled = rollout;
    top.scale.disabled = looks.what === 'score' && !rollout;
    top.sink.querySelector('[value=rest]').disabled = looks.what !== 'weight' || rollout;
    for (const option of top.over.options) {
      const few = option.value.startsWith('set') && looks.set.length < 2;
      option.disabled = few || (option.value === 'rollout' && store.firstRow > 0); // a rollout needs every row
    }
    head.pin.setAttribute('aria-pressed', String(Boolean(looks.pin)));
    heat.heat.hidden = looks.view !== 'map';
    others.lines.hidden = looks.view !== 'lines';
    others.text.hidden = looks.view !== 'text';
    heat.pinned.box.hidden = !looks.pin || looks.versus !== 'side';
    writeVersus(versus);
  }

  /** Writes what depends on what is shown now. */
  function write(nodes, shown, bar) {
    const { top, heat, versus } = nodes;
    dom.setText(top.name, sights.sightName(shown.sight));
    writeBar(top.shade, bar);
    writeHooks(nodes, shown);
    writeEmpty(heat.empty, shown.pattern);
    writeKept(heat.kept);
    writeVersus(versus);
    writeZoom(heat.zoom, glassbox.attentionPanel ? glassbox.attentionPanel.map : { zoomed: false });
    const both = looks.pin && looks.versus === 'side';
    dom.setText(heat.main.name, both ? `B  ${sights.shortName(shown.sight)}` : '');
    dom.setText(heat.pinned.name, both ? `A  ${sights.shortName(sights.pinnedSight())}` : '');
  }

  glassbox.attentionHead = { write, writeControls };
})();
