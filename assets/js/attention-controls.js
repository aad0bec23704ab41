/** What the controls of the attention panel do. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, looks, sights } = glassbox;

  function attachLooks({ panel, head, top, versus }) {
    panel.addEventListener('change', ({ target }) => {
      if (target.dataset.look) glassbox.look({ [target.dataset.look]: target.value });
    });
    panel.addEventListener('click', ({ target }) => {
      const button = target.closest('button[data-look]');
      if (button) glassbox.look({ [button.dataset.look]: button.dataset.choice });
    });
    top.shade.changed = (least) => glassbox.look({ least });
    head.pin.addEventListener('click', () => sights.togglePin());
    head.save.addEventListener('click', () => glassbox.showExport(head.save));
    versus.branch.addEventListener('change', () => {
      const branch = Number(versus.branch.value);
      const { n } = store.branches.find(({ id }) => id === branch);
      glassbox.look({ pin: { ...looks.pin, branch, position: Math.min(looks.pin.position, n - 1) } });
    });
  }

  /** The text that says what a metric is, and where it comes from, on the select and on its value. */
  function writeDefinition({ metric, value }) {
    const text = glassbox.t(`attn_def_${metric.value}`);
    for (const node of [metric, value]) node.title = text;
    metric.setAttribute('aria-description', text);
  }

  function setSorted(grid, nodes, sorted) {
    grid.sorted = sorted;
    nodes.sort.setAttribute('aria-pressed', String(sorted));
    grid.draw();
  }

  function attachGrid({ grid }, nodes) {
    const choose = (metric, like) => {
      nodes.metric.value = metric;
      grid.least = 0;
      nodes.shade.place(0);
      grid.feed.choose(metric, like);
      writeDefinition(nodes);
      glassbox.emit('sight');
    };
    const here = () => ({ layer: store.selection.layer, head: store.selection.head });
    nodes.metric.addEventListener('change', () => choose(nodes.metric.value, here()));
    nodes.like.addEventListener('click', () => {
      choose('like', here());
      setSorted(grid, nodes, true);
    });
    nodes.sort.addEventListener('click', () => {
      setSorted(grid, nodes, !grid.sorted);
      glassbox.emit('sight');
    });
    nodes.shade.changed = (least) => {
      grid.least = least;
      grid.draw();
      glassbox.emit('sight');
    };
    for (const topic of ['lang', 'hello']) glassbox.on(topic, () => writeDefinition(nodes));
    writeDefinition(nodes);
    grid.choose = choose;
    grid.sort = (sorted) => setSorted(grid, nodes, sorted);
  }

  /** Both maps move as one: whichever is zoomed or panned takes the other along. */
  function attachMap(panel, map) {
    const gestures = {
      hover: (cell) => glassbox.hoverAt(cell),
      pick: (query) => glassbox.select({ position: query }),
      view: () => {
        if (map !== panel.map) Object.assign(panel.map, { view: { ...map.view }, zoomed: map.zoomed });
        panel.map.fitView(panel.map.rows);
        panel.draw();
        glassbox.emit('sight');
      },
      step: (rows, keys) => panel.step(rows, keys),
    };
    glassbox.gestures.attachPointer(map, gestures);
    glassbox.gestures.attachKeys(map, gestures);
  }

  glassbox.attentionControls = (panel) => {
    const { nodes } = panel;
    attachLooks(nodes);
    attachGrid(panel, nodes.grid);
    attachMap(panel, panel.map);
    attachMap(panel, panel.beside);
    nodes.heat.zoom.addEventListener('click', () => {
      panel.map.reset();
      panel.draw();
      glassbox.emit('sight');
    });
  };
})();
