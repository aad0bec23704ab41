/** How the attention panel's sight is written into the page's address, and read from it. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { store, looks, lookChoices, addressField, wholeOf } = glassbox;

  const NAMES = { over: 'heads', what: 'show', sink: 'first', scale: 'scale', view: 'view', versus: 'versus', way: 'way', unit: 'unit' };

  for (const [setting, name] of Object.entries(NAMES)) {
    const [usual] = lookChoices[setting];
    addressField(name, {
      write: () => (looks[setting] === usual ? null : looks[setting]),
      read: (text) => lookChoices[setting].includes(text) && glassbox.look({ [setting]: text }),
    });
  }

  /** A head as '15.6'. */
  function headOf(text) {
    const [layer, head] = text.split('.').map(wholeOf);
    const { model } = store;
    return layer >= 0 && head >= 0 && layer < model.n_layer && head < model.n_head ? [layer, head] : null;
  }

  addressField('set', {
    write: () => (looks.set.length ? looks.set.map((head) => head.join('.')).join('_') : null),
    read: (text) => glassbox.look({ set: text.split('_').map(headOf).filter(Boolean) }),
  });

  addressField('least', {
    write: () => (looks.least ? looks.least.toFixed(2) : null),
    read: (text) => Number(text) > 0 && Number(text) <= 1 && glassbox.look({ least: Number(text) }),
  });

  /** What is pinned as 'position.layer.head.branch.over'. */
  addressField('a', {
    write() {
      const { pin } = looks;
      return pin ? [pin.position, pin.layer, pin.head, pin.branch, pin.over].join('.') : null;
    },
    read(text) {
      const [position, layer, head, branch] = text.split('.', 4).map(wholeOf);
      const over = text.split('.')[4];
      const known = store.branches.find(({ id }) => id === branch);
      if (!headOf(`${layer}.${head}`) || !known || !lookChoices.over.includes(over)) return;
      if (position < known.n) glassbox.look({ pin: { position, layer, head, branch, over, set: looks.set } });
    },
  });

  // ---- the grid and the map; they are not there yet when the address is first read ----

  const panel = () => glassbox.attentionPanel;

  addressField('metric', {
    write() {
      const feed = panel() && panel().grid.feed;
      return feed && feed.metric !== glassbox.gridMetrics[0]
        ? [feed.metric, ...(feed.metric === 'like' ? [feed.like.layer, feed.like.head] : [])].join('.')
        : null;
    },
    read(text) {
      const [metric, ...place] = text.split('.');
      const [layer, head] = headOf(place.join('.')) || [store.selection.layer, store.selection.head];
      if (panel() && glassbox.gridMetrics.includes(metric)) panel().grid.choose(metric, { layer, head });
    },
  });

  addressField('sort', {
    write: () => (panel() && panel().grid.sorted ? '1' : null),
    read: () => panel() && panel().grid.sort(true),
  });

  addressField('above', {
    write: () => (panel() && panel().grid.least ? panel().grid.least.toFixed(2) : null),
    read(text) {
      const share = Number(text);
      if (panel() && share > 0 && share <= 1) panel().nodes.grid.shade.set(share);
    },
  });

  addressField('zoom', {
    write() {
      const map = panel() && panel().map;
      return map && map.zoomed ? [map.view.x, map.view.y, map.view.n].map((x) => x.toFixed(1)).join('_') : null;
    },
    read(text) {
      const [x, y, n] = text.split('_').map(Number);
      if (panel() && [x, y, n].every(Number.isFinite) && n >= 1) panel().zoomTo({ x, y, n });
    },
  });

  addressField('branch', {
    write: () => (store.branches.length > 1 ? String(store.branch) : null),
    async read(text, again) {
      const branch = wholeOf(text);
      const there = store.branches.some(({ id }) => id === branch);
      if (there && branch !== store.branch && (await glassbox.actions.switchBranch(branch))) again();
    },
  });
})();
