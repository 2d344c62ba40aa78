import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { defineConfig, type Plugin } from 'vite'

const outDir = join(import.meta.dirname, '../../../dist/graphiql')
const dataUrl = /url\(\s*(?:"(data:[^"]*)"|'(data:[^']*)'|(data:[^)\s]*))\s*\)/g
const extensions = new Map([
  ['font/woff2', 'woff2'],
  ['font/woff', 'woff'],
  ['font/ttf', 'ttf'],
  ['image/svg+xml', 'svg'],
  ['image/png', 'png'],
])

function decode(url: string): { extension: string; bytes: Buffer } {
  const comma = url.indexOf(',')
  const [type = '', ...parameters] = url.slice('data:'.length, comma).split(';')
  const extension = extensions.get(type)
  if (!extension) throw new Error(`A stylesheet embeds ${type}, which this build has no file extension for.`)
  const payload = url.slice(comma + 1)
  const bytes = parameters.includes('base64')
    ? Buffer.from(payload, 'base64')
    : Buffer.from(decodeURIComponent(payload))
  return { extension, bytes }
}

/** GraphiQL and Monaco embed fonts and images in their stylesheets; as files they need no `font-src data:` nor `img-src data:`. */
function dataUrlsToFiles(): Plugin {
  return {
    name: 'data-urls-to-files',
    generateBundle(_options, bundle) {
      for (const sheet of Object.values(bundle)) {
        if (sheet.type !== 'asset' || !sheet.fileName.endsWith('.css')) continue
        sheet.source = Buffer.from(sheet.source)
          .toString('utf8')
          .replace(dataUrl, (_match, ...quoted: (string | undefined)[]) => {
            const { extension, bytes } = decode(quoted.slice(0, 3).find((url) => url !== undefined) ?? '')
            const fileName = `embedded-${createHash('sha256').update(bytes).digest('hex').slice(0, 12)}.${extension}`
            this.emitFile({ type: 'asset', fileName: `assets/${fileName}`, source: bytes })
            return `url(./${fileName})`
          })
      }
    },
  }
}

/** Compressed once here, so that the server, which holds the files in memory, never spends its event loop on it. */
function gzipTwins(): Plugin {
  return {
    name: 'gzip-twins',
    writeBundle() {
      const assets = join(outDir, 'assets')
      for (const name of readdirSync(assets).filter((file) => /\.(js|css|svg|ttf)$/.test(file))) {
        writeFileSync(join(assets, `${name}.gz`), gzipSync(readFileSync(join(assets, name)), { level: 9 }))
      }
    },
  }
}

export default defineConfig({
  root: import.meta.dirname,
  base: '/graphiql/',
  publicDir: false,
  logLevel: 'warn',
  plugins: [dataUrlsToFiles(), gzipTwins()],
  build: {
    outDir,
    emptyOutDir: true,
    target: ['chrome123', 'firefox121', 'safari17.5'],
    sourcemap: false,
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 8_000,
    reportCompressedSize: false,
    rolldownOptions: {
      // "use client" means nothing to a page that is never rendered on a server.
      onLog: (level, log, report) => log.code === 'MODULE_LEVEL_DIRECTIVE' || report(level, log),
    },
  },
})
