/**
 * A drawing surface that writes SVG: as much of a canvas's 2D context as the views of attention use, so that what is drawn
 * on the screen is drawn into a file by the same code. Images stay pixels; everything else stays lines and letters.
 */
(() => {
  'use strict';
  const { glassbox } = window;

  const NS = 'http://www.w3.org/2000/svg';
  const STATE = ['fillStyle', 'strokeStyle', 'lineWidth', 'globalAlpha', 'font', 'textAlign', 'textBaseline', 'dash', 'clipId'];
  const ANCHORS = { left: 'start', center: 'middle', right: 'end' };
  const BASELINES = { middle: 'central', alphabetic: 'alphabetic' };

  const round = (x) => Number(x.toFixed(2));

  class SvgSurface {
    constructor(width, height) {
      this.svg = document.createElementNS(NS, 'svg');
      this.set(this.svg, { width, height, viewBox: `0 0 ${width} ${height}`, xmlns: NS });
      this.measure = document.createElement('canvas').getContext('2d');
      Object.assign(this, { fillStyle: '#000', strokeStyle: '#000', lineWidth: 1, globalAlpha: 1, dash: '' });
      Object.assign(this, { font: '11px sans-serif', textAlign: 'left', textBaseline: 'alphabetic', clipId: '' });
      this.imageSmoothingEnabled = false;
      [this.path, this.stack, this.clips] = ['', [], 0];
      [this.dx, this.dy] = [0, 0];
    }

    set(node, attributes) {
      for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
      return node;
    }

    add(tag, attributes) {
      const node = this.set(document.createElementNS(NS, tag), attributes);
      if (this.globalAlpha < 1) node.setAttribute('opacity', round(this.globalAlpha));
      if (this.clipId) node.setAttribute('clip-path', `url(#${this.clipId})`);
      this.svg.append(node);
      return node;
    }

    // ---- state ----

    save() {
      this.stack.push([...STATE.map((name) => this[name]), this.dx, this.dy]);
    }

    restore() {
      const values = this.stack.pop();
      STATE.forEach((name, i) => {
        this[name] = values[i];
      });
      [this.dx, this.dy] = values.slice(STATE.length);
    }

    translate(x, y) {
      this.dx += x;
      this.dy += y;
    }

    setLineDash(list) {
      this.dash = list.join(' ');
    }

    // ---- shapes ----

    at(x, y) {
      return `${round(x + this.dx)} ${round(y + this.dy)}`;
    }

    beginPath() {
      this.path = '';
    }

    moveTo(x, y) {
      this.path += `M${this.at(x, y)}`;
    }

    lineTo(x, y) {
      this.path += `L${this.at(x, y)}`;
    }

    bezierCurveTo(a, b, c, d, x, y) {
      this.path += `C${this.at(a, b)} ${this.at(c, d)} ${this.at(x, y)}`;
    }

    closePath() {
      this.path += 'Z';
    }

    rect(x, y, w, h) {
      this.path += `M${this.at(x, y)}h${round(w)}v${round(h)}h${round(-w)}Z`;
    }

    roundRect(x, y, w, h, r) {
      const [straight, side] = [round(w - 2 * r), round(h - 2 * r)];
      const turn = (dx, dy) => `a${r} ${r} 0 0 1 ${dx} ${dy}`;
      this.path += `M${this.at(x + r, y)}h${straight}${turn(r, r)}v${side}${turn(-r, r)}h${-straight}${turn(-r, -r)}v${-side}${turn(r, -r)}Z`;
    }

    clip() {
      const id = `clip${++this.clips}`;
      const holder = document.createElementNS(NS, 'clipPath');
      holder.id = id;
      holder.append(this.set(document.createElementNS(NS, 'path'), { d: this.path }));
      this.svg.append(holder);
      this.clipId = id;
    }

    stroke() {
      const dash = this.dash ? { 'stroke-dasharray': this.dash } : {};
      this.add('path', { d: this.path, fill: 'none', stroke: this.strokeStyle, 'stroke-width': round(this.lineWidth), ...dash });
    }

    fill() {
      this.add('path', { d: this.path, fill: this.fillStyle });
    }

    fillRect(x, y, width, height) {
      const [px, py] = [round(x + this.dx), round(y + this.dy)];
      this.add('rect', { x: px, y: py, width: round(width), height: round(height), fill: this.fillStyle });
    }

    strokeRect(x, y, w, h) {
      this.beginPath();
      this.rect(x, y, w, h);
      this.stroke();
    }

    clearRect() {} // nothing was drawn there yet that would have to go

    // ---- text and images ----

    measureText(text) {
      this.measure.font = this.font;
      return this.measure.measureText(text);
    }

    fillText(text, x, y) {
      const font = this.font.replace(/\s+/g, ' ').trim();
      const [, weight = '400', size = '11', family = 'sans-serif'] = /^(?:(\d+) )?([\d.]+)px (.*)$/.exec(font) || [];
      const node = this.add('text', {
        x: round(x + this.dx), y: round(y + this.dy), fill: this.fillStyle,
        'font-size': size, 'font-weight': weight, 'font-family': family.replaceAll('"', "'"),
        'text-anchor': ANCHORS[this.textAlign] || 'start', 'dominant-baseline': BASELINES[this.textBaseline] || 'alphabetic',
      });
      node.textContent = text;
      node.setAttribute('xml:space', 'preserve');
    }

    drawImage(canvas, x, y, width, height) {
      const copy = document.createElement('canvas');
      Object.assign(copy, { width: canvas.width, height: canvas.height });
      copy.getContext('2d').drawImage(canvas, 0, 0);
      const [px, py] = [round(x + this.dx), round(y + this.dy)];
      const place = { x: px, y: py, width: round(width), height: round(height), preserveAspectRatio: 'none' };
      this.add('image', { ...place, href: copy.toDataURL(), style: 'image-rendering:pixelated' });
    }

    /** The drawing as text. */
    toString() {
      return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(this.svg)}\n`;
    }
  }

  glassbox.SvgSurface = SvgSurface;
})();
