/** The elements of the attention panel, without any behaviour. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { el, icon, iconButton } = glassbox.dom;

  function options(select, keys, prefix) {
    for (const key of keys) {
      const option = el('option');
      option.value = key;
      option.dataset.t = `${prefix}${key}`;
      select.append(option);
    }
    return select;
  }

  /** A select of one of the settings in `glassbox.looks`. */
  function lookSelect(name, prefix) {
    const select = options(el('select'), glassbox.lookChoices[name], prefix);
    select.id = `look-${name}`;
    select.dataset.look = name;
    select.dataset.tip = `${prefix}tip`;
    return select;
  }

  /** Buttons, one for each choice of a setting. */
  function lookSwitch(name, prefix) {
    const group = el('div', 'seg');
    group.id = `look-${name}`;
    group.setAttribute('role', 'group');
    group.dataset.tip = `${prefix}tip`;
    for (const choice of glassbox.lookChoices[name]) {
      const button = el('button');
      button.type = 'button';
      Object.assign(button.dataset, { look: name, choice, t: `${prefix}${choice}` });
      group.append(button);
    }
    return group;
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

  function row(cls, ...nodes) {
    const node = el('div', `row ${cls}`);
    node.append(...nodes);
    return node;
  }

  function textButton(id, name, key, tip) {
    const button = el('button', 'btn');
    button.type = 'button';
    button.id = id;
    button.dataset.tip = tip;
    button.append(icon(name), labelled('span', '', key));
    return button;
  }

  function buildHeader() {
    const header = el('div', 'ph');
    const title = labelled('h2', '', 'attention');
    title.id = 'h-attention';
    const pin = textButton('pin', 'compare', 'attn_compare', 'attn_compare_tip');
    pin.setAttribute('aria-pressed', 'false');
    const save = textButton('export', 'save', 'attn_export', 'attn_export_tip');
    save.setAttribute('aria-haspopup', 'dialog');
    header.append(title, labelled('span', 'mut aside', 'attn_aside'), el('span', 'grow'), pin, save);
    return { header, pin, save };
  }

  function buildGrid() {
    const box = el('div', 'gridbox');
    const metric = options(el('select'), glassbox.gridMetrics, 'attn_metric_');
    metric.id = 'metric';
    const shade = new glassbox.Shade('heads-least', 'attn_filter_tip', () => {});
    const sort = iconButton('sort', 'attn_sort', () => {}, 'heads-sort');
    const like = iconButton('search', 'attn_like', () => {}, 'heads-like');
    const [value, count] = [el('span', 'num mut gread'), el('span', 'num mut gcount')];
    const label = labelled('label', 'lab', 'attn_heads_by', 'metric');
    const top = row('gtop', label, metric, shade.node, count, el('span', 'grow'), value, sort, like);
    const wrap = el('div', 'gridwrap');
    const grid = canvas('head-grid', 'img');
    wrap.append(grid);
    box.append(top, wrap);
    return { box, metric, shade, sort, like, value, count, canvas: grid };
  }

  /** What is looked at and how: two rows of controls. */
  function buildTop() {
    const name = el('b', 'num');
    name.id = 'sight';
    const over = lookSelect('over', 'attn_over_');
    const first = row('htop', name, over, el('span', 'grow'), lookSwitch('view', 'attn_view_'));
    const shade = new glassbox.Shade('least', 'attn_least_tip', () => {});
    const what = lookSelect('what', 'attn_what_');
    const scale = lookSelect('scale', 'attn_scale_');
    const sink = lookSelect('sink', 'attn_first_');
    const second = row('htop second', what, shade.node, el('span', 'grow'), scale, sink);
    return { first, second, name, over, what, scale, sink, shade };
  }

  /** What stands beside the map when something is pinned. */
  function buildVersus() {
    const [pinned, current] = [el('span', 'side a num'), el('span', 'side b num')];
    const branch = el('select');
    branch.id = 'pin-branch';
    branch.dataset.tip = 'attn_pin_branch';
    const close = iconButton('close', 'attn_unpin', () => glassbox.look({ pin: null }), 'unpin');
    const how = lookSwitch('versus', 'attn_versus_');
    return { bar: row('versus', pinned, branch, current, el('span', 'grow'), how, close), pinned, current, branch, how };
  }

  function buildZoom() {
    const zoom = el('button', 'btn zoom num');
    zoom.type = 'button';
    zoom.hidden = true;
    zoom.dataset.tip = 'attn_zoom_tip';
    zoom.append(el('span'), glassbox.dom.icon('close'));
    return zoom;
  }

  function buildMap(id) {
    const box = el('div', 'map');
    const nodes = { box, map: canvas(id, 'img'), over: canvas(), name: el('span', 'mname num'), best: el('div', 'best num') };
    nodes.over.className = 'over';
    box.append(nodes.map, nodes.over, nodes.name, nodes.best);
    return nodes;
  }

  function buildHeat() {
    const heat = el('div', 'heat');
    const [pinned, main] = [buildMap('heatmap-pinned'), buildMap('heatmap')];
    const nodes = { heat, pinned, main, note: el('div', 'note num'), empty: el('div', 'empty'), zoom: buildZoom() };
    nodes.kept = labelled('p', 'kept num', '');
    delete nodes.kept.dataset.t;
    nodes.empty.append(el('b'), el('p'));
    main.box.append(nodes.note, nodes.empty, nodes.zoom);
    heat.append(pinned.box, main.box);
    return nodes;
  }

  function buildOthers() {
    const lines = el('div', 'linesbox');
    const linesCanvas = canvas('lines', 'img');
    lines.append(linesCanvas);
    const text = el('div', 'textbox');
    const how = row('thow', lookSwitch('way', 'attn_way_'), el('span', 'grow'), lookSwitch('unit', 'attn_unit_of_'));
    const scroll = el('div', 'scroll rscroll');
    scroll.id = 'attention-text';
    scroll.setAttribute('role', 'group');
    scroll.tabIndex = 0;
    text.append(how, scroll);
    return { lines, linesCanvas, text, scroll };
  }

  /** Builds the panel into `root`. */
  function build(root) {
    const panel = el('section', 'attn');
    panel.setAttribute('aria-labelledby', 'h-attention');
    const head = buildHeader();
    const grid = buildGrid();
    const view = el('div', 'view');
    const [top, versus, heat, others] = [buildTop(), buildVersus(), buildHeat(), buildOthers()];
    const [line, table] = [el('div', 'readout num'), el('table', 'visually-hidden')];
    view.append(top.first, top.second, versus.bar, heat.heat, others.lines, others.text, heat.kept, line, table);
    panel.append(head.header, grid.box, view);
    root.append(panel);
    return { panel, head, grid, view, top, versus, heat, others, line, table };
  }

  glassbox.attentionNodes = build;
})();
