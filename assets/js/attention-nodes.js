/** The elements of the attention panel, without any behaviour. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { el } = glassbox.dom;

  function options(select, keys, prefix) {
    for (const key of keys) {
      const option = el('option');
      option.value = key;
      option.dataset.t = `${prefix}${key}`;
      select.append(option);
    }
    return select;
  }

  function labelled(tag, cls, key, id) {
    const node = el(tag, cls);
    node.dataset.t = key;
    if (id) node.htmlFor = id;
    return node;
  }

  function canvas(id, role) {
    const node = el('canvas');
    if (id) node.id = id;
    if (role) node.setAttribute('role', role);
    if (role) node.tabIndex = 0;
    return node;
  }

  function buildGrid() {
    const box = el('div', 'gridbox');
    const top = el('div', 'row gtop');
    const metric = options(el('select'), glassbox.grid.METRICS, 'attn_metric_');
    metric.id = 'metric';
    const [bar, value] = [el('span', 'ramp'), el('span', 'num mut gread')];
    const nodes = { metric, bar, value, canvas: canvas('head-grid', 'img') };
    top.append(labelled('label', 'lab', 'attn_heads_by', 'metric'), metric, bar, el('span', 'grow'), value);
    const wrap = el('div', 'gridwrap');
    wrap.append(nodes.canvas);
    box.append(top, wrap);
    return { box, ...nodes };
  }

  function buildSink(look) {
    const label = el('label', 'sw');
    label.dataset.tip = 'attn_sink_tip';
    const input = el('input');
    input.type = 'checkbox';
    input.id = 'exclude-first';
    input.checked = look.skipFirst;
    label.append(input, el('i'), labelled('span', '', 'attn_sink'));
    return { label, input };
  }

  function buildTop(look) {
    const top = el('div', 'row htop');
    const scale = options(el('select'), Object.keys(glassbox.picture.SCALES), 'attn_scale_');
    scale.id = 'scale';
    scale.value = look.scale;
    scale.dataset.tip = 'attn_scale_tip';
    const nodes = { name: el('b', 'num'), ramp: el('span', 'ramp'), scale, sink: buildSink(look) };
    top.append(nodes.name, nodes.ramp, scale, el('span', 'grow'), nodes.sink.label);
    return { top, ...nodes };
  }

  function buildZoom() {
    const zoom = el('button', 'btn zoom num');
    zoom.type = 'button';
    zoom.hidden = true;
    zoom.dataset.tip = 'attn_zoom_tip';
    zoom.append(el('span'), glassbox.dom.icon('close'));
    return zoom;
  }

  function buildHeat(look) {
    const view = el('div', 'view');
    const heat = el('div', 'heat');
    const nodes = {
      map: canvas('heatmap', 'img'), over: canvas(), note: el('div', 'note num'), empty: el('div', 'empty'),
      zoom: buildZoom(), line: el('div', 'readout num'), table: el('table', 'visually-hidden'),
      top: buildTop(look),
    };
    nodes.over.className = 'over';
    nodes.empty.append(el('b'), el('p'));
    heat.append(nodes.map, nodes.over, nodes.note, nodes.empty, nodes.zoom);
    view.append(nodes.top.top, heat, nodes.line, nodes.table);
    return { view, heat, ...nodes };
  }

  /** Builds the panel into `root`; `look` says how its controls stand at first. */
  function build(root, look) {
    const panel = el('section', 'attn');
    panel.setAttribute('aria-labelledby', 'h-attention');
    const header = el('div', 'ph');
    const title = labelled('h2', '', 'attention');
    title.id = 'h-attention';
    header.append(title, labelled('span', 'mut aside', 'attn_aside'));
    const grid = buildGrid();
    const heat = buildHeat(look);
    panel.append(header, grid.box, heat.view);
    root.append(panel);
    return { panel, grid, heat };
  }

  glassbox.attentionNodes = build;
})();
