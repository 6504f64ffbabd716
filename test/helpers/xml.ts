/** What a strict reader of XML finds, as far as a report needs it: elements with attributes, text, nesting. */
export interface XmlElement {
  name: string;
  attributes: Record<string, string>;
  children: XmlElement[];
  /** Of itself and all below, decoded. */
  text: string;
}

const entities: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'" };

function decode(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  if (/[<\u0000-\u0008\u000b\u000c\u000e-\u001f]/.test(text))
    throw new Error(`not XML: ${text.slice(0, 80)}`);
  return text.replace(/&([^;&\s]*)(;?)/g, (whole, name: string, end: string) => {
    const found = entities[name];
    if (found === undefined || end !== ';') throw new Error(`unknown entity ${whole}`);
    return found;
  });
}

/** @throws Error for whatever is no well-formed element: open tags, attributes without quotes or twice, bare & or <. */
export function parseXml(source: string): XmlElement {
  const tag = /<(\/?)([A-Za-z][\w:-]*)((?:\s+[\w:-]+="[^"<]*")*)\s*(\/?)>/y;
  const root: XmlElement = { name: '', attributes: {}, children: [], text: '' };
  const open = [root];
  let at = 0;
  while (at < source.length) {
    const here = open.at(-1) as XmlElement;
    const next = source.indexOf('<', at);
    const text = decode(source.slice(at, next < 0 ? source.length : next));
    for (const one of open) one.text += text;
    if (next < 0) break;
    tag.lastIndex = next;
    const match = tag.exec(source);
    if (!match) throw new Error(`no tag: ${source.slice(next, next + 80)}`);
    const [whole, closing, name = '', list = '', empty] = match;
    if (closing) {
      if (here.name !== name) throw new Error(`</${name}> ends <${here.name}>`);
      open.pop();
    } else {
      const attributes: Record<string, string> = {};
      for (const [, key = '', value = ''] of list.matchAll(/([\w:-]+)="([^"]*)"/g)) {
        if (key in attributes) throw new Error(`${key} twice in <${name}>`);
        attributes[key] = decode(value);
      }
      const element = { name, attributes, children: [], text: '' };
      here.children.push(element);
      if (!empty) open.push(element);
    }
    at = next + whole.length;
  }
  if (open.length !== 1 || root.children.length !== 1) throw new Error(`<${open.at(-1)?.name}> is open`);
  return root.children[0] as XmlElement;
}

/** Every element of the name, and of the class where one is given, at any depth. */
export function all(element: XmlElement, name: string, ofClass?: string): XmlElement[] {
  const below = element.children.flatMap((child) => all(child, name, ofClass));
  const classes = (element.attributes.class ?? '').split(' ');
  const mine = element.name === name && (ofClass === undefined || classes.includes(ofClass));
  return mine ? [element, ...below] : below;
}
