"""English words for styles, moods and instruments, and particles, by which an idea is read.

Words between spaces, in one form each: whoever looks one up leaves its ending out.
"""

from __future__ import annotations

#: Names of styles and sounds whose words belong together, also where one of them is a particle.
WHOLE = (
    "drum and bass", "drum & bass", "drum'n'bass", "drum n bass", "r & b", "rhythm and blues", "rock and roll",
    "rock & roll", "rock'n'roll", "rock n roll", "call and response", "four on the floor", "bossa nova", "lo fi",
    "hip hop", "trip hop", "synth pop", "new wave", "new age", "big band", "spoken word", "slow jam", "music box",
)  # fmt: skip
STYLES = """
acid afrobeat afropop ambient americana anime anthem ballad ballet bachata baroque bebop bhangra bitpop blues
bluegrass bolero bollywood boogie bossa breakbeat breakcore britpop cabaret cajun calypso carol celtic cha-cha chanson
chant chillhop chillout chillwave chiptune choral chorale cinematic classical country crunk cumbia dance dancehall
darkwave disco doo-wop doom downtempo dub dubstep edm electro electronic electronica electropop emo eurodance fado
fanfare flamenco folk forro fugue funk fusion gabber gamelan garage glam glitch gospel gothic grime grindcore grunge
hardcore hardstyle hip-hop house hymn hyperpop idm indie industrial jazz jingle jive j-pop jungle k-pop klezmer
krautrock latin lo-fi lullaby madrigal mambo mariachi mazurka merengue metal metalcore minuet motown neoclassical
nocturne nu-metal opera operetta orchestral outrun phonk polka pop post-punk post-rock prelude progressive psychedelic
psytrance punk qawwali r&b raga ragtime rap rave reggae reggaeton requiem retrowave rnb rock rockabilly rocksteady
rumba salsa samba schlager shanty shoegaze showtune singer-songwriter ska skiffle sonata soul soundtrack swing
symphonic symphony synthpop synthwave tango tarantella techno tex-mex thrash trailer trance trap trip-hop tropicalia
vallenato vaporwave waltz western worship zouk zydeco 8-bit 16-bit 50s 60s 70s 80s 90s 2000s
"""
MOODS = """
aggressive airy angry anthemic anxious atmospheric bittersweet bleak blissful bold bouncy breezy bright brooding
brutal calm carefree catchy cheerful chill comforting cozy creepy cute danceable dark defiant delicate desperate dirty
dramatic dreamy driving dusty eerie elegant emotional energetic epic ethereal euphoric exotic fast feel-good festive
fierce floating forlorn frantic fun funky funny furious gentle glitchy gloomy goofy grand grateful gritty groovy happy
hard haunting hazy heartbroken heartfelt heavy heroic hopeful hypnotic icy innocent inspiring intense intimate
introspective jolly joyful joyous laid-back late-night lazy lively lonely loud loving lush magical majestic meditative
melancholic melancholy mellow menacing midtempo moody mournful mysterious mystical neon nervous nocturnal nostalgic
ominous optimistic passionate pastoral peaceful pensive plaintive playful powerful proud quiet quirky rainy raw
rebellious reflective relaxing restless retro romantic rowdy rustic sad scary seductive sensual sentimental serene
serious sexy silly sleazy sleepy slow smoky smooth soft solemn somber sombre soothing sorrowful soulful spacey
spacious sparse spooky sultry sunny suspenseful sweet tender tense theatrical tragic tranquil trippy triumphant upbeat
uplifting uptempo vintage warm whimsical wild wistful yearning
"""
INSTRUMENTS = """
808 accordion arpeggiator bagpipe balalaika bandoneon banjo bass bassline bassoon beatbox bell bodhran bongo bouzouki
brass cajon castanet celesta cello charango chime choir clap clarinet clavinet conga contrabass cornet cowbell crackle
cymbal didgeridoo djembe drone drum duduk dulcimer erhu fiddle flugelhorn flute glockenspiel gong guitar guzheng
hammond handpan harmonica harmonium harp harpsichord hi-hat horn kalimba kazoo keyboard kora koto lute lyre mandolin
maraca marimba mbira mellotron melodica moog oboe ocarina organ oud pad percussion piano piccolo pipa rapper rhodes
saxophone sax shaker shakuhachi shamisen singer sitar snare sousaphone steelpan string synth synthesizer synthesiser
tabla taiko tambourine theremin timbales timpani trombone trumpet tuba turntable ukulele vibraphone vinyl viola violin
vocal vocalist vocoder voice whistle whistling woodwind wurlitzer xylophone zither
"""
#: Words that say the same of music, by line.
ALIKE = """
sad melancholic melancholy sorrowful mournful somber sombre wistful plaintive
happy cheerful joyful joyous upbeat jolly feel-good
calm peaceful serene tranquil relaxing soothing gentle chill
angry furious aggressive fierce
energetic lively driving upbeat
eerie creepy spooky haunting scary
tense suspenseful
soft gentle tender
nocturnal late-night
sensual sultry sexy seductive
warm cozy cosy
dreamy ethereal
slow downtempo
fast uptempo
rainy rain
voice vocal vocalist singer singing sung
drum percussion
synth synthesizer synthesiser
sax saxophone
violin fiddle
horn brass
orchestral orchestra symphonic
choir choral
cinematic soundtrack
electronic electro
r&b rnb
ukulele uke
"""
#: Words without a meaning of their own.
PARTICLES = """
a about above across after against all along also am among an and another any anybody anyone are around as at be been
before behind being below beneath beside between beyond both but by can could did do does doesn't doing don't down
during each every everybody everyone feat featuring for from had has have having he her here hers him his how i i'm if
in inside into is isn't it it's its just less let let's lets like many may me might mine more most much must my near
no nor not of off on one ones only onto or other our out outside over past per please plus really shall she should
since so some somebody someone something than that the their them then there these they this those through to too
toward towards under until up upon us very via was we were what when where which while who whom whose why will with
within without would you your yours two three four five six seven eight nine ten
"""
#: Those of them that are words of other languages, too, and so no sign of English.
SHARED = """
a all am an as at do for had has he her i in is it may me no on one or per so to us was we were will
"""
#: Particles of other languages that are no English words: of Spanish, Portuguese, Italian and French; of German, Dutch
#: and the Scandinavian languages; of Polish and Turkish.
FOREIGN = """
una uno unos unas el los las lo la sobre con por para y del mi su que es muy um uma os e com da dos das em meu minha
não na il gli della dello di nel sulla che mio mia une le les des du et avec pour sur dans ma mon mes ses est qui aux
au à
der das den dem ein eine einen einer eines und mit über für von vom zum zur im ist ich mein meine nicht het een met
van voor en op mijn och ett om med på til af og jeg jag ei som
w z ze o się jest bez dla bir ve için ile
"""
#: Words that ask for music and say nothing of it, besides those of `captions.SAYING_LITTLE`.
ASKING = """
banger compose create feel feeling generate genre give jam kind lyrics mood need number produce sort style theme type
version vibe want words write
"""
